//! The bounded ring of a mailbox: many push, one pops, nobody locks.
//!
//! Every slot carries a sequence number that says whose turn it is. For the slot of position `p` in a ring of
//! `capacity` slots: `p` = free for the push of `p`; `p + 1` = holds the item of `p`; `p + capacity` = popped, free
//! for the push one lap later. A push claims its position by moving `tail`, then writes, then sets the sequence; the
//! popper trusts only the sequence.

use std::mem::MaybeUninit;

use super::primitives::{AtomicUsize, Ordering, OwnLine, UnsafeCell};

pub(super) struct Ring<T> {
    /// The next position to push. Moved by every sender.
    tail: OwnLine<AtomicUsize>,
    /// The next position to pop. Stored by the popper only; others read it to estimate the length.
    head: OwnLine<AtomicUsize>,
    slots: Box<[Slot<T>]>,
}

struct Slot<T> {
    sequence: AtomicUsize,
    item: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: an item is written by the one sender that claimed its position and read by the one popper after the
// sequence said so (Release / Acquire); it moves between threads, so T must be Send.
unsafe impl<T: Send> Send for Ring<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    /// A ring of at least `capacity` slots: the next power of two, and 2 at least (with one slot "holds the item" and
    /// "free one lap later" would be the same number).
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(2).next_power_of_two();
        let slots = (0..capacity)
            .map(|position| Slot {
                sequence: AtomicUsize::new(position),
                item: UnsafeCell::new(MaybeUninit::uninit()),
            })
            .collect();
        Self {
            tail: OwnLine(AtomicUsize::new(0)),
            head: OwnLine(AtomicUsize::new(0)),
            slots,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn len(&self) -> usize {
        let head = self.head.0.load(Ordering::Acquire);
        let tail = self.tail.0.load(Ordering::Acquire);
        tail.wrapping_sub(head).min(self.capacity())
    }

    fn slot(&self, position: usize) -> &Slot<T> {
        debug_assert!(self.slots.len().is_power_of_two());
        &self.slots[position & (self.slots.len() - 1)]
    }

    /// Any thread. Gives the item back when the ring is full.
    #[inline]
    pub(super) fn push(&self, item: T) -> Result<(), T> {
        let mut position = self.tail.0.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(position);
            let lag = slot
                .sequence
                .load(Ordering::Acquire)
                .wrapping_sub(position)
                .cast_signed();
            if lag < 0 {
                return Err(item);
            }
            if lag > 0 {
                // Another sender was faster.
                position = self.tail.0.load(Ordering::Relaxed);
                continue;
            }
            match self.tail.0.compare_exchange_weak(
                position,
                position.wrapping_add(1),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    // SAFETY: the sequence said the slot is free for this position and the position is now ours alone.
                    slot.item.with_mut(|cell| unsafe { (*cell).write(item) });
                    slot.sequence
                        .store(position.wrapping_add(1), Ordering::Release);
                    return Ok(());
                }
                Err(moved) => position = moved,
            }
        }
    }

    /// Takes the oldest item, unless its sender is still writing it.
    ///
    /// # Safety
    /// Only one thread at a time pops, and pops are ordered among each other.
    #[inline]
    pub(super) unsafe fn pop(&self) -> Option<T> {
        let position = self.head.0.load(Ordering::Relaxed);
        let slot = self.slot(position);
        if slot.sequence.load(Ordering::Acquire) != position.wrapping_add(1) {
            return None;
        }
        // SAFETY: the sequence says the item of this position was written, and only we pop.
        let item = slot
            .item
            .with_mut(|cell| unsafe { (*cell).assume_init_read() });
        slot.sequence
            .store(position.wrapping_add(self.capacity()), Ordering::Release);
        self.head
            .0
            .store(position.wrapping_add(1), Ordering::Release);
        Some(item)
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // SAFETY: nobody else has the ring any more.
        while unsafe { self.pop() }.is_some() {}
    }
}
