//! Which bytes of the window are being read, so that the writer does not lay others over them.
//!
//! A reader takes a slot, stores the log offset it starts at, and only then looks at the floor; the writer raises
//! the floor and only then looks at the slots. All four accesses are sequentially consistent, so at least one of
//! the two sees the other: the reader gives up, or the writer stays away. A pin is held while bytes are copied,
//! never across an await; a loan until an answer was handed to the kernel, within a few turns of its core.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// More than there are threads that read: 64 shards, the writer, and helpers of each.
pub const SLOTS: usize = 192;
/// Of loans each thread has so many to itself; more threads than 64 share them.
const LOANS_PER_THREAD: usize = 16;
#[cfg(not(loom))]
const LOANS_MAX: usize = LOANS_PER_THREAD * 64;
/// A model looks at every slot in every order.
#[cfg(loom)]
const LOANS_MAX: usize = 1;
const FREE: u64 = u64::MAX;

/// Keeps slots of different cores on different cache lines; the adjacent line is fetched along.
#[repr(align(128))]
struct Slot(AtomicU64);

pub struct Pins {
    /// Below, bytes may have been overwritten. Stored by the writer only.
    floor: AtomicU64,
    slots: Box<[Slot]>,
    loans: Box<[Slot]>,
}

/// Everything from the pinned offset on stays as it is until this is dropped.
pub struct Pin<'a>(&'a Slot);

/// The same until `Pins::take_back`.
#[must_use]
pub struct Loan(usize);

impl Pins {
    pub fn new(slots: usize) -> Pins {
        let free = |count| (0..count).map(|_| Slot(AtomicU64::new(FREE))).collect();
        Pins {
            floor: AtomicU64::new(0),
            slots: free(slots),
            loans: free(LOANS_MAX),
        }
    }

    pub fn floor(&self) -> u64 {
        self.floor.load(Ordering::SeqCst)
    }

    /// `None`: the bytes at `offset` may be gone, or more threads read than there are slots.
    #[inline]
    pub fn pin(&self, offset: u64) -> Option<Pin<'_>> {
        let hint = hint();
        let count = self.slots.len();
        let slot = (0..count)
            .map(|number| &self.slots[(hint + number) % count])
            .find(|slot| slot.take(offset))?;
        let pin = Pin(slot);
        self.is_there(offset).then_some(pin)
    }

    /// `None`: as for `pin`, or this thread has lent as much as it may.
    #[inline]
    pub fn lend(&self, offset: u64) -> Option<Loan> {
        let first = hint() * LOANS_PER_THREAD % self.loans.len();
        let mut own = first..first + LOANS_PER_THREAD.min(self.loans.len());
        let loan = Loan(own.find(|number| self.loans[*number].take(offset))?);
        if self.is_there(offset) {
            return Some(loan);
        }
        self.take_back(&loan);
        None
    }

    /// Of these pins, and once.
    pub fn take_back(&self, loan: &Loan) {
        self.loans[loan.0].free();
    }

    /// Asked behind the taking of a slot.
    #[inline]
    fn is_there(&self, offset: u64) -> bool {
        // Between the slot and the floor, as `raise_floor` has one between the floor and the slots: at least one of the two
        // sees the other.
        fence(Ordering::SeqCst);
        offset >= self.floor()
    }

    /// Raises the floor. Returns the offset below which nobody reads and nobody will: the floor, or a pin below it.
    pub fn raise_floor(&self, floor: u64) -> u64 {
        if floor > self.floor.load(Ordering::Relaxed) {
            self.floor.store(floor, Ordering::SeqCst);
        }
        fence(Ordering::SeqCst); // as in `pin`
        let slots = self.slots.iter().chain(&self.loans);
        slots
            .map(|slot| slot.0.load(Ordering::SeqCst))
            .fold(floor, u64::min)
    }

    /// Before anybody reads.
    pub fn reset(&self, floor: u64) {
        self.floor.store(floor, Ordering::SeqCst);
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.free();
    }
}

impl Slot {
    /// Unless somebody has it.
    #[inline]
    fn take(&self, offset: u64) -> bool {
        assert!(offset != FREE, "no log is that long");
        let (seen, full) = (Ordering::SeqCst, Ordering::Relaxed);
        self.0.compare_exchange(FREE, offset, seen, full).is_ok()
    }

    #[inline]
    fn free(&self) {
        // What was read happens before the writer that sees the slot free.
        self.0.store(FREE, Ordering::Release);
    }
}

/// Where a thread begins to look for a slot: each at another.
#[cfg(not(loom))]
fn hint() -> usize {
    use std::sync::atomic::AtomicUsize;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static HINT: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    HINT.with(|hint| *hint)
}

#[cfg(loom)]
fn hint() -> usize {
    0
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_pin_holds_the_writer_back_and_the_floor_holds_readers_back() {
        let pins = Pins::new(2);
        let pin = pins.pin(100).expect("nothing is gone yet");
        assert_eq!(pins.raise_floor(500), 100);
        assert!(pins.pin(499).is_none());
        let other = pins.pin(500).expect("it is still there");
        assert!(pins.pin(600).is_none(), "both slots are taken");
        drop(pin);
        assert_eq!(pins.raise_floor(500), 500);
        drop(other);
        assert!(pins.pin(600).is_some());
    }

    #[test]
    fn a_loan_holds_the_writer_back_and_a_thread_has_some() {
        let pins = Pins::new(2);
        let loans: Vec<_> = (0..LOANS_PER_THREAD as u64)
            .map(|number| pins.lend(100 + number).expect("nothing is gone yet"))
            .collect();
        assert!(pins.lend(200).is_none(), "that was all");
        assert!(pins.pin(200).is_some(), "pins are apart");
        assert_eq!(pins.raise_floor(500), 100);
        pins.take_back(&loans[0]);
        assert!(pins.lend(499).is_none(), "it is gone");
        assert_eq!(pins.raise_floor(500), 101);
        assert!(pins.lend(500).is_some(), "the slot was given back");
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test -p engine --lib --release pins`
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    #[test]
    fn what_is_pinned_is_never_laid_over() {
        loom::model(|| {
            let pins = Arc::new(Pins::new(2));
            // One place of the ring: it holds the byte of offset 0, later that of offset 8.
            let place = Arc::new(AtomicU64::new(0));
            let look = |place: &AtomicU64| {
                assert_eq!(place.load(Ordering::Relaxed), 0);
                assert_eq!(place.load(Ordering::Relaxed), 0);
            };
            let of_reader = (pins.clone(), place.clone());
            let pinning = thread::spawn(move || {
                let (pins, place) = of_reader;
                if let Some(_pin) = pins.pin(0) {
                    look(&place);
                }
            });
            let of_reader = (pins.clone(), place.clone());
            let lending = thread::spawn(move || {
                let (pins, place) = of_reader;
                if let Some(loan) = pins.lend(0) {
                    look(&place);
                    pins.take_back(&loan);
                }
            });
            if pins.raise_floor(8) == 8 {
                place.store(8, Ordering::Relaxed);
            }
            for reader in [pinning, lending] {
                reader.join().expect("a reader's assertions hold");
            }
        });
    }
}
