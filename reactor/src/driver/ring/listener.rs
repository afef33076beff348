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
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

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
        // Sets SO_REUSEADDR.
        let listener = patiently(|| TcpListener::bind(address))?;
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

    pub(crate) fn check(address: SocketAddr) -> io::Result<()> {
        patiently(|| bound(address)).map(drop)
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
fn patiently<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let began = std::time::Instant::now();
    loop {
        match bind() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < BIND_PATIENCE =>
            {
                std::thread::sleep(BIND_RETRY_AFTER);
            }
            bound => return bound,
        }
    }
}

/// A socket that has the address and refuses everybody.
fn bound(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // As for a listener: what the last life's connections left behind is not in the way.
    net::sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_looks_whether_an_address_is_free_lets_nobody_in() {
        let free = TcpListener::bind("127.0.0.1:0").expect("some port is free");
        let address = free.local_addr().expect("it is bound");
        let taken = bound(address).map(drop).map_err(|error| error.kind());
        assert_eq!(taken, Err(io::ErrorKind::AddrInUse));
        drop(free);
        let bound = bound(address).expect("nobody has it any more");
        let refused = TcpStream::connect(address).map_err(|error| error.kind());
        assert_eq!(refused.map(drop), Err(io::ErrorKind::ConnectionRefused));
        drop(bound);
        assert!(Listener::check(address).is_ok());
    }
}
