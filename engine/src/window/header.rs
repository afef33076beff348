//! The page that says what is in a window's memory: whose it is, and which bytes of the log.
//!
//! Fixed fields are guarded by a checksum, which is written last when a window is begun and removed first when it is
//! given up. The three offsets are stored one by one as the log grows; each alone is true at any moment.

use reactor::LoopedMemory;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub const HEADER_BYTES: usize = 4096;
const MAGIC: u64 = u64::from_be_bytes(*b"orbitwin");
const VERSION: u64 = 1;

const FIXED_WORDS: usize = 9;
const CHECKSUM: usize = FIXED_WORDS;
const START: usize = 10;
const WRITTEN: usize = 11;
const ON_DISK: usize = 12;
const WORDS: usize = 13;
const _: () = assert!(WORDS * size_of::<u64>() <= HEADER_BYTES);

/// Whose window it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Of the store, for ever.
    pub store: [u8; 16],
    /// Of the machine's run: memory of another one cannot be here.
    pub boot: [u8; 16],
    pub segment_bytes: u64,
    /// Which life of the store: nobody has had it since.
    pub generation: u64,
}

/// What the log's offsets were when the process that had the window ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Oldest byte in the window.
    pub start: u64,
    pub on_disk: u64,
    pub written: u64,
}

pub struct Header {
    memory: Arc<LoopedMemory>,
}

impl Header {
    pub fn new(memory: Arc<LoopedMemory>) -> Header {
        assert!(memory.head_bytes() >= HEADER_BYTES, "a head of a page");
        Header { memory }
    }

    fn word(&self, number: usize) -> &AtomicU64 {
        assert!(number < WORDS, "the header has {WORDS} words");
        // SAFETY: the head is mapped, aligned to a page, as long as the memory lives, and only ever reached through
        // these atomics; any bits are a number.
        unsafe { AtomicU64::from_ptr(self.memory.head().as_ptr().cast::<u64>().add(number)) }
    }

    /// From here on the window belongs to this life of the store, which goes on at `end`.
    pub fn begin(&self, identity: &Identity, start: u64, end: u64) {
        self.give_up();
        let fixed = fixed_words(identity, self.memory.len() as u64);
        for (number, word) in fixed.into_iter().enumerate() {
            self.word(number).store(word, Ordering::Relaxed);
        }
        self.word(START).store(start, Ordering::Relaxed);
        self.word(WRITTEN).store(end, Ordering::Relaxed);
        self.word(ON_DISK).store(end, Ordering::Relaxed);
        self.word(CHECKSUM)
            .store(checksum(&fixed), Ordering::Release);
    }

    /// Nothing in the window is needed any more.
    pub fn give_up(&self) {
        self.word(CHECKSUM).store(0, Ordering::Release);
    }

    #[inline]
    pub fn set_start(&self, start: u64) {
        self.word(START).store(start, Ordering::Release);
    }

    #[inline]
    pub fn set_written(&self, written: u64) {
        self.word(WRITTEN).store(written, Ordering::Release);
    }

    #[inline]
    pub fn set_on_disk(&self, on_disk: u64) {
        self.word(ON_DISK).store(on_disk, Ordering::Release);
    }

    /// What lies before `at` is not needed any more, and nothing is there yet. Whoever is killed on the way leaves a window
    /// that was given up.
    pub fn go_on_at(&self, at: u64) {
        let checksum = self.word(CHECKSUM).swap(0, Ordering::SeqCst);
        for number in [START, WRITTEN, ON_DISK] {
            self.word(number).store(at, Ordering::SeqCst);
        }
        self.word(CHECKSUM).store(checksum, Ordering::SeqCst);
    }

    /// What a process left that was killed; otherwise why there is nothing that can be used.
    pub fn left(&self, identity: &Identity) -> Result<Left, &'static str> {
        let mut found = [0; FIXED_WORDS];
        for (number, word) in found.iter_mut().enumerate() {
            *word = self.word(number).load(Ordering::Acquire);
        }
        let expected = fixed_words(identity, self.memory.len() as u64);
        if self.word(CHECKSUM).load(Ordering::Acquire) != checksum(&found) {
            return Err("it was given up, or its header is damaged");
        }
        if found[..2] != expected[..2] {
            return Err("its format is another");
        }
        if found[2..4] != expected[2..4] {
            return Err("it belongs to another store");
        }
        if found[4..6] != expected[4..6] {
            return Err("the machine was restarted since");
        }
        if found[8] != expected[8] {
            return Err("the store was opened without it since");
        }
        if found != expected {
            return Err("its size or that of the log files is another");
        }
        let left = Left {
            start: self.word(START).load(Ordering::Acquire),
            on_disk: self.word(ON_DISK).load(Ordering::Acquire),
            written: self.word(WRITTEN).load(Ordering::Acquire),
        };
        let held = left.start..=left.start.saturating_add(self.memory.len() as u64);
        if left.on_disk > left.written
            || !held.contains(&left.on_disk)
            || !held.contains(&left.written)
        {
            return Err("its offsets do not fit together");
        }
        Ok(left)
    }
}

fn fixed_words(identity: &Identity, bytes: u64) -> [u64; FIXED_WORDS] {
    let halves = |id: [u8; 16]| {
        let id = u128::from_be_bytes(id);
        [(id >> 64) as u64, id as u64]
    };
    let ([store_high, store_low], [boot_high, boot_low]) =
        (halves(identity.store), halves(identity.boot));
    [
        MAGIC,
        VERSION,
        store_high,
        store_low,
        boot_high,
        boot_low,
        bytes,
        identity.segment_bytes,
        identity.generation,
    ]
}

/// Never zero.
fn checksum(fixed: &[u64; FIXED_WORDS]) -> u64 {
    let crc = fixed.iter().fold(0, |crc, word| {
        crc32c::crc32c_append(crc, &word.to_be_bytes())
    });
    1 << 32 | u64::from(crc)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 64 << 10;
    const IDENTITY: Identity = Identity {
        store: [1; 16],
        boot: [2; 16],
        segment_bytes: 1 << 20,
        generation: 7,
    };

    fn header() -> Header {
        let memory = LoopedMemory::anonymous(LEN, HEADER_BYTES).expect("a little memory");
        Header::new(Arc::new(memory))
    }

    #[test]
    fn what_is_left_is_what_was_stored_last() {
        let header = header();
        assert!(header.left(&IDENTITY).is_err(), "zeros are no header");
        header.begin(&IDENTITY, 4096, 5000);
        header.set_written(6000);
        header.set_on_disk(5500);
        let left = header.left(&IDENTITY).expect("it was begun");
        assert_eq!((left.start, left.on_disk, left.written), (4096, 5500, 6000));
        header.give_up();
        assert!(header.left(&IDENTITY).is_err());
    }

    #[test]
    fn a_window_of_another_store_boot_or_size_is_refused() {
        let header = header();
        header.begin(&IDENTITY, 0, 10);
        for other in [
            Identity {
                store: [3; 16],
                ..IDENTITY
            },
            Identity {
                boot: [3; 16],
                ..IDENTITY
            },
            Identity {
                generation: 6,
                ..IDENTITY
            },
            Identity {
                segment_bytes: 4096,
                ..IDENTITY
            },
        ] {
            assert!(header.left(&other).is_err(), "{other:?}");
        }
        assert!(header.left(&IDENTITY).is_ok());
    }

    #[test]
    fn damage_in_any_fixed_field_and_impossible_offsets_are_noticed() {
        let header = header();
        for number in 0..=FIXED_WORDS {
            header.begin(&IDENTITY, 0, 10);
            let word = header.word(number);
            word.store(word.load(Ordering::Relaxed) ^ 4, Ordering::Relaxed);
            assert!(header.left(&IDENTITY).is_err(), "word {number}");
        }
        header.begin(&IDENTITY, 0, 10);
        header.set_on_disk(11);
        assert!(header.left(&IDENTITY).is_err());
        header.begin(&IDENTITY, 0, 10);
        header.set_written(LEN as u64 + 1);
        assert!(header.left(&IDENTITY).is_err());
    }
}
