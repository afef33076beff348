//! Listening sockets of a ring: one multishot accept fills a queue of connections.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use io_uring::opcode;
use io_uring::types::Fd;

use super::Ring;
use super::op::Slot;
use super::socket::{Handle, Socket};

/// Connections the kernel completes before we accept them.
const BACKLOG: libc::c_int = 4096;
const BIND_PATIENCE: Duration = Duration::from_secs(2);
const BIND_RETRY_AFTER: Duration = Duration::from_millis(5);

pub(crate) struct Listener {
    ring: Rc<Ring>,
    acceptor: Rc<Acceptor>,
    local: SocketAddr,
}

impl Listener {
    pub(crate) fn bind(ring: &Rc<Ring>, address: SocketAddr) -> io::Result<Listener> {
        let listener = bind_patiently(address)?;
        let local = listener.local_addr()?;
        let handle = Handle::new(ring.clone(), OwnedFd::from(listener));
        // SAFETY: the descriptor is open. Listening again changes the length of the queue.
        if unsafe { libc::listen(handle.fd(), BACKLOG) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Listener {
            ring: ring.clone(),
            acceptor: Rc::new(Acceptor {
                handle,
                arrived: RefCell::default(),
                waker: RefCell::default(),
                armed: Cell::new(None),
                closed: Cell::new(false),
            }),
            local,
        })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        loop {
            let fd = poll_fn(|cx| self.acceptor.poll(&self.ring, cx)).await?;
            match Socket::connected(self.ring.clone(), TcpStream::from(fd)) {
                // Gone before we looked at it.
                Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {}
                other => return other,
            }
        }
    }

    pub(crate) fn close(&self) {
        self.acceptor.close(&self.ring);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.acceptor.close(&self.ring);
    }
}

pub(super) struct Acceptor {
    handle: Rc<Handle>,
    arrived: RefCell<VecDeque<io::Result<OwnedFd>>>,
    waker: RefCell<Option<Waker>>,
    armed: Cell<Option<u32>>,
    closed: Cell<bool>,
}

impl Acceptor {
    fn poll(self: &Rc<Self>, ring: &Ring, cx: &mut Context<'_>) -> Poll<io::Result<OwnedFd>> {
        if self.closed.get() {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::NotConnected)));
        }
        let arrived = self.arrived.borrow_mut().pop_front();
        if let Some(arrived) = arrived {
            return Poll::Ready(arrived);
        }
        if self.armed.get().is_none() {
            let entry = opcode::AcceptMulti::new(Fd(self.handle.fd()))
                .flags(libc::SOCK_CLOEXEC)
                .build();
            let key = ring.start_multishot(Slot::Accept(self.clone()), entry);
            self.armed.set(Some(key));
        }
        self.waker.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    pub(super) fn complete(&self, result: i32, more: bool) {
        if !more {
            self.armed.set(None);
        }
        let arrived = if result >= 0 {
            // SAFETY: a fresh descriptor that the kernel gave to us alone.
            Some(Ok(unsafe { OwnedFd::from_raw_fd(result) }))
        } else {
            match -result {
                libc::ECANCELED | libc::EINTR | libc::EAGAIN => None,
                errno => Some(Err(io::Error::from_raw_os_error(errno))),
            }
        };
        if let (Some(arrived), false) = (arrived, self.closed.get()) {
            self.arrived.borrow_mut().push_back(arrived);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn close(&self, ring: &Ring) {
        if self.closed.replace(true) {
            return;
        }
        self.handle.shutdown(); // refuses newcomers at once
        self.arrived.borrow_mut().clear();
        if let Some(key) = self.armed.get() {
            ring.cancel(key);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A killed process holds its ports a little longer than it lives: the kernel takes its ring down in the background. So an
/// address in use is tried again for a moment before it counts as somebody else's. Blocks, at a start only.
fn bind_patiently(address: SocketAddr) -> io::Result<TcpListener> {
    let began = std::time::Instant::now();
    loop {
        // Sets SO_REUSEADDR.
        match TcpListener::bind(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < BIND_PATIENCE =>
            {
                std::thread::sleep(BIND_RETRY_AFTER);
            }
            bound => return bound,
        }
    }
}
