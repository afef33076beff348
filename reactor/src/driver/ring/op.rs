//! Operations in flight. A slot owns what the kernel reads or writes until the completion has come; a future that is
//! dropped earlier leaves its slot behind, marked, and asks the kernel to cancel.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::Ring;
use super::file::LoopedWrite;
use super::listener::Acceptor;
use super::receive::Receiver;
use super::send::GatherSend;
use super::socket::Handle;
use super::unpark::Unpark;
use crate::buffer::Buffer;

/// What an operation's slot keeps alive. The descriptor is part of it: its number must not be reused while an entry
/// that names it may not have been submitted yet.
#[allow(dead_code)] // descriptors and addresses are held, never read
pub(super) enum Keep {
    Address(Rc<Handle>, Box<libc::sockaddr_storage>),
    Bytes(Rc<Handle>, Vec<u8>),
    Gathers(Rc<Handle>, Box<GatherSend>),
    Buffer(Arc<std::fs::File>, Buffer),
    Looped(Arc<std::fs::File>, Box<LoopedWrite>),
    File(Arc<std::fs::File>),
}

pub(super) enum Slot {
    /// The next free slot.
    Free(Option<u32>),
    Single(Single),
    Receive(Rc<Receiver>),
    Accept(Rc<Acceptor>),
    /// A place in the table of registered files.
    CloseFixed(u32),
    /// A wake-up sent to another ring.
    Message(Unpark),
}

pub(super) struct Single {
    pub(super) waker: Option<Waker>,
    pub(super) result: Option<i32>,
    pub(super) abandoned: bool,
    keep: Keep,
}

impl Slot {
    pub(super) fn single(keep: Keep) -> Slot {
        Slot::Single(Single {
            waker: None,
            result: None,
            abandoned: false,
            keep,
        })
    }
}

/// All slots of a ring. A slot's index is in the operation's `user_data`; it is free again only after the last completion.
#[derive(Default)]
pub(super) struct Ops {
    slots: Vec<Slot>,
    first_free: Option<u32>,
    live: usize,
}

impl Ops {
    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn insert(&mut self, slot: Slot) -> u32 {
        self.live += 1;
        let Some(key) = self.first_free else {
            self.slots.push(slot);
            return u32::try_from(self.slots.len() - 1).expect("operations fit in memory");
        };
        let before = std::mem::replace(&mut self.slots[key as usize], slot);
        let Slot::Free(next) = before else {
            unreachable!("the free list holds free slots");
        };
        self.first_free = next;
        key
    }

    pub(super) fn slot(&mut self, key: u32) -> &mut Slot {
        &mut self.slots[key as usize]
    }

    /// The caller drops what it gets after letting go of the table: destructors may start operations.
    #[must_use = "drop it outside the borrow of the table"]
    pub(super) fn remove(&mut self, key: u32) -> Slot {
        let free = Slot::Free(self.first_free);
        let slot = std::mem::replace(&mut self.slots[key as usize], free);
        debug_assert!(!matches!(slot, Slot::Free(_)), "a slot is freed once");
        self.first_free = Some(key);
        self.live -= 1;
        slot
    }

    pub(super) fn receivers(&self) -> Vec<Rc<Receiver>> {
        let slots = self.slots.iter();
        slots
            .filter_map(|slot| match slot {
                Slot::Receive(receiver) => Some(receiver.clone()),
                _ => None,
            })
            .collect()
    }

    fn single(&mut self, key: u32) -> &mut Single {
        match &mut self.slots[key as usize] {
            Slot::Single(single) => single,
            _ => unreachable!("a future owns a single operation"),
        }
    }
}

/// The wait for an operation with one completion: its result, and what it kept.
pub(super) struct Op {
    ring: Rc<Ring>,
    /// None once completed.
    key: Option<u32>,
}

impl Op {
    pub(super) fn new(ring: Rc<Ring>, key: u32) -> Op {
        Op {
            ring,
            key: Some(key),
        }
    }
}

impl Future for Op {
    type Output = (i32, Keep);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(i32, Keep)> {
        let key = self.key.expect("not polled after completion");
        let mut ops = self.ring.ops.borrow_mut();
        let single = ops.single(key);
        let Some(result) = single.result else {
            match &mut single.waker {
                Some(known) => known.clone_from(cx.waker()),
                unset => *unset = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        let Slot::Single(single) = ops.remove(key) else {
            unreachable!("it was single a moment ago");
        };
        drop(ops);
        self.key = None;
        Poll::Ready((result, single.keep))
    }
}

impl Drop for Op {
    fn drop(&mut self) {
        let Some(key) = self.key else {
            return;
        };
        if self.ring.closed.get() {
            return; // the slot went with the ring
        }
        let mut ops = self.ring.ops.borrow_mut();
        let single = ops.single(key);
        if single.result.is_some() {
            let removed = ops.remove(key);
            drop(ops);
            drop(removed);
        } else {
            single.abandoned = true;
            let waker = single.waker.take();
            drop(ops);
            drop(waker);
            // Finds nothing of a quiet send, but ends the sleep before which that is settled.
            self.ring.cancel(key);
        }
    }
}
