//! Where one queue stands in a sealed index, without the whole directory in memory: a store of 100,000 topics has
//! directories of tens of megabytes, and who looks for a queue's segment asks a dozen of them.
//!
//! ```text
//!   directory   topics a .. f | topics g .. m | ...       checked once as a whole, then given back
//!   in memory   a, where, crc | g, where, crc | ...       a lookup reads one piece of it again
//! ```
//!
//! What was found is remembered, and so are the blocks of entries that were read last, because a reader that goes through
//! a queue asks for the same ones again and again.

use super::part::{
    BLOCK_BYTES, Damage, HEADER_BYTES, Header, Kind, LISTED_BYTES, block_of, check_block,
    entries_of, listed, topic_bytes,
};
use super::sealed::{SealedRun, open_companion, read_directory};
use super::{Entry, Place};
use crate::QueueNo;
use crate::queue::Queue;
use hashbrown::HashMap;
use reactor::{Buffer, File};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A piece is whole topics, and ends with the first that makes it this long.
const PIECE_BYTES: usize = 4096;
/// Runs that are remembered; then all are forgotten.
const RUNS_MAX: usize = 4096;
/// Blocks of entries that are kept.
const BLOCKS_MAX: usize = 32;

/// One sealed index, open for lookups.
pub struct Lookup {
    file: File,
    header: Header,
    /// In the order of their topics.
    pieces: Vec<Piece>,
    found: Mutex<Found>,
}

/// Some topics of the directory.
struct Piece {
    first_topic: Box<str>,
    /// Where it lies in the file.
    at: u64,
    bytes: u32,
    crc: u32,
    /// Entries of all queues before it.
    entries_before: u64,
}

#[derive(Default)]
struct Found {
    /// By queue. None: the segment does not know it.
    runs: HashMap<QueueNo, Option<SealedRun>>,
    /// The newest first.
    blocks: VecDeque<(u64, Arc<Buffer>)>,
}

impl Lookup {
    /// Opens the sealed index at `path` and checks header and directory. Blocks.
    pub fn open(path: &Path, segment_base: u64) -> io::Result<Lookup> {
        let (file, header) = open_companion(path, segment_base)?;
        if header.head.kind != Kind::Sealed {
            return Err(Damage::Misplaced.into());
        }
        let directory = read_directory(&file, &header)?;
        let pieces = pieces_of(&header, &directory)?;
        Ok(Lookup {
            file,
            header,
            pieces,
            found: Mutex::default(),
        })
    }

    /// What the segment has of a queue; none if it did not know it.
    pub async fn run(&self, queue: &Queue) -> io::Result<Option<SealedRun>> {
        if let Some(known) = self.found().runs.get(&queue.no()) {
            return Ok(*known);
        }
        let run = self.find(queue).await?;
        let mut found = self.found();
        if found.runs.len() == RUNS_MAX {
            found.runs.clear();
        }
        found.runs.insert(queue.no(), run);
        Ok(run)
    }

    async fn find(&self, queue: &Queue) -> io::Result<Option<SealedRun>> {
        let behind = self
            .pieces
            .partition_point(|piece| *piece.first_topic <= *queue.topic());
        let Some(piece) = behind.checked_sub(1).map(|number| &self.pieces[number]) else {
            return Ok(None);
        };
        let len = piece.bytes as usize;
        let buffer = Buffer::with_capacity(len);
        let (read, buffer) = self.file.read_at(buffer, piece.at, len).await;
        if read? < len {
            return Err(Damage::Short.into());
        }
        if crc32c::crc32c(&buffer) != piece.crc {
            return Err(Damage::Directory.into());
        }
        let (mut run, mut place) = (None, piece.entries_before);
        listed(&buffer, |listed| {
            if listed.topic == queue.topic() && listed.id == queue.id() {
                run = Some(SealedRun {
                    queue: queue.no(),
                    entries: listed.entries,
                    first: listed.first,
                    place,
                });
            }
            place += u64::from(listed.entries);
        })?;
        Ok(run)
    }

    /// Up to `count` places from the one numbered `from` in the run. Reads whole blocks and checks them.
    pub async fn places(&self, run: SealedRun, from: u32, count: u32) -> io::Result<Vec<Place>> {
        assert!(from <= run.entries, "the caller looked at the run");
        let count = u64::from(count.min(run.entries - from));
        let mut next = run.place + u64::from(from);
        let end = next + count;
        let head = &self.header.head;
        let mut places = Vec::with_capacity(count as usize);
        while next < end {
            let (number, slot) = block_of(next);
            let known = self.known_block(number);
            let block = match known {
                Some(block) => block,
                None => self.read_block(number).await?,
            };
            let entries = &entries_of(&block)[slot..];
            let taken = entries.len().min((end - next) as usize);
            places.extend(
                entries[..taken]
                    .iter()
                    .map(|bytes| Place::of(Entry::decode(bytes), head.segment_base, head.base_ms)),
            );
            next += taken as u64;
        }
        Ok(places)
    }

    fn known_block(&self, number: u64) -> Option<Arc<Buffer>> {
        let found = self.found();
        let mut blocks = found.blocks.iter();
        let block = blocks.find(|(of, _)| *of == number)?;
        Some(block.1.clone())
    }

    async fn read_block(&self, number: u64) -> io::Result<Arc<Buffer>> {
        let at = self.header.blocks_at() + number * BLOCK_BYTES as u64;
        let buffer = Buffer::with_capacity(BLOCK_BYTES);
        let (read, buffer) = self.file.read_at(buffer, at, BLOCK_BYTES).await;
        if read? < BLOCK_BYTES {
            return Err(Damage::Short.into());
        }
        check_block(&buffer, number)?;
        let block = Arc::new(buffer);
        let mut found = self.found();
        if found.blocks.len() == BLOCKS_MAX {
            found.blocks.pop_back();
        }
        found.blocks.push_front((number, block.clone()));
        Ok(block)
    }

    /// The most it may come to hold.
    pub fn memory_bytes(&self) -> usize {
        let names: usize = self
            .pieces
            .iter()
            .map(|piece| piece.first_topic.len())
            .sum();
        let queues = (self.header.queues as usize).min(RUNS_MAX);
        names
            + self.pieces.len() * size_of::<Piece>()
            + queues * 2 * size_of::<(QueueNo, Option<SealedRun>)>()
            + BLOCKS_MAX * BLOCK_BYTES
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        // Whole between any two statements above.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pieces_of(header: &Header, directory: &[u8]) -> Result<Vec<Piece>, Damage> {
    let mut pieces = Vec::new();
    // Of the piece that is growing: where it begins, its first topic, the entries before it.
    let mut open: Option<(usize, Box<str>, u64)> = None;
    let (mut at, mut entries) = (0, 0u64);
    let close = |open: &mut Option<(usize, Box<str>, u64)>, end: usize| {
        open.take()
            .map(|(from, first_topic, entries_before)| Piece {
                first_topic,
                at: (HEADER_BYTES + from) as u64,
                bytes: (end - from) as u32,
                crc: crc32c::crc32c(&directory[from..end]),
                entries_before,
            })
    };
    let mut topic_now = None;
    header.directory(directory, |listed| {
        if topic_now != Some(listed.topic) {
            topic_now = Some(listed.topic);
            if open
                .as_ref()
                .is_some_and(|(from, ..)| at - from >= PIECE_BYTES)
            {
                pieces.extend(close(&mut open, at));
            }
            open.get_or_insert_with(|| (at, listed.topic.into(), entries));
            at += topic_bytes(listed.topic);
        }
        at += LISTED_BYTES;
        entries += u64::from(listed.entries);
    })?;
    pieces.extend(close(&mut open, directory.len()));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::super::part::{Head, Listed, encode};
    use super::super::sealed::Sealed;
    use super::*;
    use crate::queue::Registry;

    const TOPICS: u32 = 20_000;
    const BASE: u64 = 1 << 30;

    fn entry(number: u32) -> Entry {
        Entry {
            position: number * 100,
            bytes: 100,
            tag_hash: number as i32,
            delta_ms: number,
        }
    }

    /// Topic `n` has queues 0 and 3; the first has `n % 3` entries, the other one.
    fn write(path: &Path) {
        let names: Vec<String> = (0..TOPICS).map(|n| format!("topic-{n:06}")).collect();
        let queues: Vec<Listed<'_>> = (0..)
            .zip(&names)
            .flat_map(|(n, topic)| {
                [(0, n % 3), (3, 1)].map(|(id, entries)| Listed {
                    topic,
                    id,
                    first: u64::from(n) * 10,
                    entries,
                })
            })
            .collect();
        let head = Head {
            kind: Kind::Sealed,
            segment_base: BASE,
            segment_bytes: 1 << 30,
            from: BASE,
            to: 2 * BASE,
            base_ms: 5,
            last_ms: 6,
        };
        let mut bytes = Vec::new();
        let mut number = 0;
        encode(
            &head,
            &queues,
            |_, _| {
                number += 1;
                entry(number)
            },
            |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            },
        )
        .expect("a vector takes everything");
        std::fs::write(path, bytes).expect("the temporary directory is writable");
    }

    #[test]
    fn a_lookup_finds_what_the_whole_directory_says_and_holds_little_of_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("index");
        write(&path);
        let ran = reactor::run(reactor::CoreConfig::default(), || async move {
            let registry = Registry::default();
            let sealed = Sealed::open(&path, BASE, &registry).expect("just written");
            let lookup = Lookup::open(&path, BASE).expect("just written");
            let directory = lookup.header.directory_bytes as usize;
            let pieces: usize = lookup.pieces.len() * (size_of::<Piece>() + 12);
            assert!(pieces * 40 < directory, "{pieces} of {directory} bytes");
            for n in (0..TOPICS).step_by(61).chain([TOPICS - 1]) {
                for id in [0, 3, 9] {
                    let queue = registry.find_or_make(&format!("topic-{n:06}"), id);
                    for _ in 0..2 {
                        let found = lookup.run(&queue).await.expect("the disk works");
                        let known = sealed.run(queue.no());
                        assert_eq!(found.is_some(), id != 9);
                        assert_eq!(
                            found.map(|run| (run.first, run.entries, run.place)),
                            known.map(|run| (run.first, run.entries, run.place))
                        );
                    }
                }
            }
            for topic in ["", "a", "topic-", "topic-0000005", "z"] {
                let queue = registry.find_or_make(topic, 0);
                assert!(lookup.run(&queue).await.expect("the disk works").is_none());
            }
            let queue = registry.find_or_make("topic-000002", 0);
            let run = lookup.run(&queue).await.expect("the disk works");
            let run = run.expect("it is listed");
            let places = lookup.places(run, 0, 2).await.expect("the disk works");
            // Before it: topics 0 and 1 with one and two entries.
            let tags: Vec<i32> = places.iter().map(|place| place.tag_hash).collect();
            assert_eq!(tags, [4, 5]);
        });
        ran.expect("io_uring is available");
    }
}
