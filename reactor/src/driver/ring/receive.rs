//! The receiving half of a connection: one multishot receive fills an arrival queue, the task takes from it.
//! A task that does not take ends the receive at a bound; the kernel's window then holds the peer back.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use io_uring::types::Fd;
use io_uring::{cqueue, opcode};

use super::Ring;
use super::op::Slot;
use super::pool::{GROUP, PooledBytes};
use super::socket::Handle;
use crate::chunk::Chunk;

/// Arrivals that nobody takes, in buffers of the pool: at this many the receive is cancelled until they are taken.
const ARRIVALS_MAX: usize = 16;

pub(super) struct Receiver {
    handle: Rc<Handle>,
    arrivals: RefCell<VecDeque<Arrival>>,
    waker: RefCell<Option<Waker>>,
    state: Cell<State>,
    /// No bytes will come any more: the peer closed, or an error was reported.
    ended: Cell<bool>,
    /// The socket is gone.
    dropped: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Armed(u32),
    /// Armed, and asked to end.
    Cancelling,
    /// There was no buffer; the ring arms it again.
    Starved,
}

enum Arrival {
    Pooled(PooledBytes),
    Copied(Vec<u8>),
    Failed(io::Error),
}

impl Receiver {
    pub(super) fn new(handle: Rc<Handle>) -> Rc<Receiver> {
        Rc::new(Receiver {
            handle,
            arrivals: RefCell::default(),
            waker: RefCell::default(),
            state: Cell::new(State::Idle),
            ended: Cell::new(false),
            dropped: Cell::new(false),
        })
    }

    pub(super) fn poll(
        self: &Rc<Self>,
        ring: &Ring,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Chunk>> {
        let arrival = self.arrivals.borrow_mut().pop_front();
        if let Some(arrival) = arrival {
            return Poll::Ready(arrival.into_chunk());
        }
        if self.ended.get() {
            return Poll::Ready(Ok(Chunk::closed()));
        }
        if self.state.get() == State::Idle {
            self.arm(ring);
        }
        match &mut *self.waker.borrow_mut() {
            Some(known) => known.clone_from(cx.waker()),
            unset => *unset = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn arm(self: &Rc<Self>, ring: &Ring) {
        let (number, flags) = self.handle.target(ring);
        let entry = opcode::RecvMulti::new(Fd(number), GROUP)
            .build()
            .flags(flags);
        let key = ring.start_multishot(Slot::Receive(self.clone()), entry);
        self.state.set(State::Armed(key));
    }

    /// Arms a starved receiver: there are buffers again.
    pub(super) fn feed(self: &Rc<Self>, ring: &Ring) {
        debug_assert!(self.state.get() == State::Starved, "fed only when starved");
        self.state.set(State::Idle);
        if !self.dropped.get() {
            self.arm(ring);
        }
    }

    /// One completion of the receive; the last one has no `more` flag.
    pub(super) fn complete(self: &Rc<Self>, ring: &Ring, result: i32, flags: u32) {
        if !cqueue::more(flags) {
            self.state.set(State::Idle);
        }
        let bytes = cqueue::buffer_select(flags).map(|id| ring.pool.take(id, result.max(0) as u32));
        if self.dropped.get() {
            return;
        }
        match (result, bytes) {
            (1.., Some(bytes)) => self.arrive(ring, Arrival::Pooled(bytes)),
            (1.., None) => unreachable!("received bytes lie in a provided buffer"),
            (0, _) => self.ended.set(true),
            (error, _) => match -error {
                libc::ENOBUFS => {
                    self.state.set(State::Starved);
                    ring.starved.borrow_mut().push(self.clone());
                    return;
                }
                // Ended by us or by chance: the task arms it again when it asks for more.
                libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
                errno => {
                    self.ended.set(true);
                    let error = io::Error::from_raw_os_error(errno);
                    self.arrivals.borrow_mut().push_back(Arrival::Failed(error));
                }
            },
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn arrive(&self, ring: &Ring, arrival: Arrival) {
        let mut arrivals = self.arrivals.borrow_mut();
        arrivals.push_back(arrival);
        if arrivals.len() >= ARRIVALS_MAX
            && let State::Armed(key) = self.state.get()
        {
            self.state.set(State::Cancelling);
            ring.cancel(key);
        }
    }

    /// Copies what waits here out of the pool's buffers.
    pub(super) fn unload(&self) {
        for arrival in self.arrivals.borrow_mut().iter_mut() {
            if let Arrival::Pooled(bytes) = arrival {
                *arrival = Arrival::Copied(bytes.as_slice().to_vec());
            }
        }
    }

    /// The socket is being dropped: ends the receive and gives the buffers back.
    pub(super) fn abandon(&self, ring: &Ring) {
        self.dropped.set(true);
        self.arrivals.borrow_mut().clear();
        drop(self.waker.take());
        if let State::Armed(key) = self.state.get() {
            self.state.set(State::Cancelling);
            ring.cancel(key);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state.get() == State::Idle && self.arrivals.borrow().is_empty()
    }
}

impl Arrival {
    fn into_chunk(self) -> io::Result<Chunk> {
        match self {
            Arrival::Pooled(mut bytes) => Ok(if bytes.try_hold() {
                Chunk::from_pool(bytes)
            } else {
                Chunk::from_vec(bytes.as_slice().to_vec())
            }),
            Arrival::Copied(bytes) => Ok(Chunk::from_vec(bytes)),
            Arrival::Failed(error) => Err(error),
        }
    }
}
