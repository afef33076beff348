//! Bounded mailboxes between cores: many senders, one receiver, no lock while there is room.
//!
//! Items of one sender arrive in the order sent. A full mailbox makes senders wait in line ([`Sender::send`]) or says
//! so ([`Sender::try_send`]); nobody who waits is passed. A sleeping receiver is woken, one that is awake is not: an
//! item costs an atomic exchange and a fence. Works on any executor: it knows `std::task::Waker` and nothing else.
//!
//! ```text
//! senders ──► [ring: capacity slots] ──► receiver
//!    └─ full? wait in line ──┘ moved in order by whoever sees room
//! ```

mod oneshot;
mod primitives;
mod ring;
mod sleeper;
mod waiting;

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

pub use oneshot::{Answer, Reply, oneshot};
use primitives::{Arc, AtomicBool, AtomicUsize, Ordering, OwnLine, fence};
use ring::Ring;
use sleeper::Sleeper;
use waiting::{Turn, Waiting};

/// A mailbox for at least `capacity` items (rounded up to a power of two, and 2 at least).
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        ring: Ring::new(capacity),
        receiver: OwnLine(Sleeper::new()),
        receiver_gone: AtomicBool::new(false),
        senders: AtomicUsize::new(1),
        waiting: Waiting::new(),
    });
    (Sender(shared.clone()), Receiver(shared))
}

/// The item that was not taken, because the receiver is gone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Closed<T>(pub T);

/// The item that was not taken, and why.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// No room now, or others wait for room already.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

pub struct Sender<T>(Arc<Shared<T>>);

pub struct Receiver<T>(Arc<Shared<T>>);

struct Shared<T> {
    ring: Ring<T>,
    receiver: OwnLine<Sleeper>,
    receiver_gone: AtomicBool,
    senders: AtomicUsize,
    waiting: Waiting<T>,
}

impl<T> Sender<T> {
    #[inline]
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        let shared = &*self.0;
        if shared.receiver_gone.load(Ordering::Acquire) {
            return Err(TrySendError::Closed(item));
        }
        if shared.waiting.anybody() {
            return Err(TrySendError::Full(item));
        }
        shared.ring.push(item).map_err(TrySendError::Full)?;
        shared.after_push();
        Ok(())
    }

    /// Waits for room, in line with everybody else who does. Dropping the future takes the item back out of the line.
    pub async fn send(&self, item: T) -> Result<(), Closed<T>> {
        match self.try_send(item) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(item)) => Err(Closed(item)),
            Err(TrySendError::Full(item)) => {
                let place = Place::Outside(item);
                WaitForRoom {
                    shared: &self.0,
                    place,
                }
                .await
            }
        }
    }

    /// Items in the mailbox at about this moment, without those of waiting senders.
    pub fn len(&self) -> usize {
        self.0.ring.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn capacity(&self) -> usize {
        self.0.ring.capacity()
    }

    pub fn is_closed(&self) -> bool {
        self.0.receiver_gone.load(Ordering::Acquire)
    }
}

impl<T> Receiver<T> {
    /// The oldest item, if there is one.
    #[inline]
    pub fn try_recv(&mut self) -> Option<T> {
        // SAFETY: `&mut self` of the only receiver.
        let item = unsafe { self.0.ring.pop() }?;
        self.0.after_pop();
        Some(item)
    }

    /// The oldest item; `None` once all senders are gone and everything was received.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|context| self.poll_with(context, |receiver| receiver.try_recv())).await
    }

    /// Waits for at least one item, appends up to `max` to `into` and says how many; 0 once all senders are gone and
    /// everything was received.
    pub async fn recv_many(&mut self, into: &mut Vec<T>, max: usize) -> usize {
        assert!(max > 0, "receiving at most nothing never ends");
        let taken = poll_fn(|context| {
            self.poll_with(context, |receiver| receiver.try_recv_many(into, max))
        });
        taken.await.unwrap_or(0)
    }

    /// Appends what is there, up to `max`, and says how many, if any.
    pub fn try_recv_many(&mut self, into: &mut Vec<T>, max: usize) -> Option<usize> {
        let mut count = 0;
        while count < max {
            // SAFETY: `&mut self` of the only receiver.
            let Some(item) = (unsafe { self.0.ring.pop() }) else {
                break;
            };
            into.push(item);
            count += 1;
        }
        if count == 0 {
            return None;
        }
        self.0.after_pop();
        Some(count)
    }

    pub fn len(&self) -> usize {
        self.0.ring.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn poll_with<R>(
        &mut self,
        context: &mut Context<'_>,
        mut take: impl FnMut(&mut Self) -> Option<R>,
    ) -> Poll<Option<R>> {
        self.0.receiver.0.disarm();
        if let Some(taken) = take(self) {
            return Poll::Ready(Some(taken));
        }
        self.0.receiver.0.register(context.waker());
        // Read before the ring: a sender pushes before it leaves.
        let no_senders = self.0.senders.load(Ordering::Acquire) == 0;
        if let Some(taken) = take(self) {
            self.0.receiver.0.disarm();
            return Poll::Ready(Some(taken));
        }
        if no_senders {
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

impl<T> Shared<T> {
    /// Every push ends here: the receiver learns of it, or the item is dropped if there is no receiver any more.
    #[inline]
    fn after_push(&self) {
        self.receiver.0.wake();
        // Ordered behind the push by the fence in `wake`; the receiver's drop has its own.
        if self.receiver_gone.load(Ordering::Acquire) {
            self.drain();
        }
    }

    /// Every pop ends here: room is given to those who wait for it.
    #[inline]
    fn after_pop(&self) {
        // Either we see the waiting sender here, or it sees the free slot.
        fence(Ordering::SeqCst);
        if self.waiting.anybody() {
            self.let_waiting_in();
        }
    }

    #[cold]
    fn let_waiting_in(&self) {
        let mut moved = false;
        while self.waiting.hand_over_first(|item| self.ring.push(item)) {
            moved = true;
        }
        if moved {
            self.after_push();
        }
    }

    /// Drops what nobody will receive: a reply inside an item must not wait for the last sender to go.
    #[cold]
    fn drain(&self) {
        loop {
            let line = self.waiting.lock();
            // SAFETY: the receiver is gone and the lock admits one drain at a time.
            let item = unsafe { self.ring.pop() };
            drop(line);
            // Dropped outside the lock: it may own anything.
            if item.is_none() {
                break;
            }
        }
    }
}

/// A sender's wait for room.
struct WaitForRoom<'a, T> {
    shared: &'a Shared<T>,
    place: Place<T>,
}

enum Place<T> {
    Outside(T),
    InLine(u64),
    Left,
}

/// The item is never pinned, only moved.
impl<T> Unpin for WaitForRoom<'_, T> {}

impl<T> Future for WaitForRoom<'_, T> {
    type Output = Result<(), Closed<T>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let shared = this.shared;
        let ticket = match std::mem::replace(&mut this.place, Place::Left) {
            Place::Outside(item) => {
                let ticket = shared.waiting.enter(item, context.waker());
                // Either we see the free slot now, or the receiver sees us after its pop.
                fence(Ordering::SeqCst);
                shared.let_waiting_in();
                ticket
            }
            Place::InLine(ticket) => ticket,
            Place::Left => panic!("polled after it ended"),
        };
        if shared.receiver_gone.load(Ordering::Acquire) {
            return Poll::Ready(match shared.waiting.leave(ticket) {
                Some(item) => Err(Closed(item)),
                None => Ok(()),
            });
        }
        match shared.waiting.turn(ticket, context.waker()) {
            Turn::HandedOver => Poll::Ready(Ok(())),
            Turn::Waiting => {
                this.place = Place::InLine(ticket);
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for WaitForRoom<'_, T> {
    fn drop(&mut self) {
        if let Place::InLine(ticket) = self.place {
            drop(self.shared.waiting.leave(ticket));
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.receiver.0.wake();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.receiver_gone.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.0.drain();
        self.0.waiting.wake_all();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}

impl<T> fmt::Display for Closed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the receiver of the mailbox is gone")
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the mailbox is full",
            Self::Closed(_) => "the receiver of the mailbox is gone",
        })
    }
}

/// Whatever T is, so that a result can be unwrapped.
impl<T> fmt::Debug for Closed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closed")
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Closed(_) => "Closed",
        })
    }
}

impl<T> std::error::Error for Closed<T> {}
impl<T> std::error::Error for TrySendError<T> {}
