//! Connections of a ring.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use io_uring::opcode;
use io_uring::squeue::Flags;
use io_uring::types::Fd;

use super::op::Keep;
use super::receive::Receiver;
use super::{Ring, io_result, send};
use crate::chunk::Chunk;
use crate::gather::Gather;

mod address;

/// An open descriptor and, from its first operation on, its place in the table of registered files. Shared by a socket
/// and its operations in flight; closed when the last of them is done.
pub(super) struct Handle {
    ring: Rc<Ring>,
    fixed: Cell<Fixed>,
    /// None only while the handle is being taken apart.
    fd: Option<OwnedFd>,
}

#[derive(Clone, Copy)]
enum Fixed {
    Untried,
    None,
    At(u32),
}

impl Handle {
    pub(super) fn new(ring: Rc<Ring>, fd: OwnedFd) -> Rc<Handle> {
        Rc::new(Handle {
            ring,
            fixed: Cell::new(Fixed::Untried),
            fd: Some(fd),
        })
    }

    /// Takes the descriptor out of a handle that nothing else shares and no operation has registered.
    fn into_fd(self: Rc<Self>) -> OwnedFd {
        let mut handle = Rc::into_inner(self).expect("no operation shares the handle");
        assert!(
            matches!(handle.fixed.get(), Fixed::Untried),
            "the handle is not registered"
        );
        handle.fd.take().expect("taken once")
    }

    /// What an entry names the file by: a number, and the flag that says which kind.
    pub(super) fn target(&self, ring: &Ring) -> (RawFd, Flags) {
        if let Fixed::Untried = self.fixed.get() {
            let place = ring
                .fixed
                .borrow_mut()
                .insert(&ring.uring.borrow(), self.fd());
            self.fixed.set(place.map_or(Fixed::None, Fixed::At));
        }
        match self.fixed.get() {
            Fixed::At(index) => (index as RawFd, Flags::FIXED_FILE),
            Fixed::Untried | Fixed::None => (self.fd(), Flags::empty()),
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        let fd = self
            .fd
            .as_ref()
            .expect("open as long as the handle is shared");
        fd.as_raw_fd()
    }

    pub(super) fn shutdown(&self) {
        // SAFETY: the descriptor is open. Failing means that the connection is over already.
        unsafe { libc::shutdown(self.fd(), libc::SHUT_RDWR) };
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Fixed::At(index) = self.fixed.get() {
            self.ring.close_fixed(index);
        }
    }
}

pub(crate) struct Socket {
    ring: Rc<Ring>,
    handle: Rc<Handle>,
    receiver: Rc<Receiver>,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Socket {
    /// Wraps a connected stream, switching Nagle's algorithm off.
    pub(super) fn connected(ring: Rc<Ring>, stream: TcpStream) -> io::Result<Socket> {
        stream.set_nodelay(true)?;
        let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
        Ok(Socket::new(ring, OwnedFd::from(stream), peer, local))
    }

    fn new(ring: Rc<Ring>, fd: OwnedFd, peer: SocketAddr, local: SocketAddr) -> Socket {
        let handle = Handle::new(ring.clone(), fd);
        let receiver = Receiver::new(handle.clone());
        Socket {
            ring,
            handle,
            receiver,
            peer,
            local,
        }
    }

    pub(crate) async fn connect(ring: Rc<Ring>, peer: SocketAddr) -> io::Result<Socket> {
        let (address, len) = address::to_c(peer);
        let family = libc::c_int::from(address.ss_family);
        // SAFETY: plain system call; the result is checked.
        let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let handle = Handle::new(ring.clone(), unsafe { OwnedFd::from_raw_fd(fd) });
        let address = Box::new(address);
        let entry = opcode::Connect::new(Fd(fd), (&raw const *address).cast(), len).build();
        let (result, keep) = ring
            .start(Keep::Address(handle.clone(), address), entry)
            .await;
        drop(keep);
        io_result(result)?;
        Socket::connected(ring, TcpStream::from(handle.into_fd()))
    }

    pub(crate) async fn recv(&self) -> io::Result<Chunk> {
        poll_fn(|cx| self.receiver.poll(&self.ring, cx)).await
    }

    pub(crate) async fn send(&self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        send::send_all(&self.ring, &self.handle, bytes).await
    }

    pub(crate) async fn send_quietly(&self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        send::send_quietly(&self.ring, &self.handle, bytes).await
    }

    pub(crate) fn notice(&self) {
        self.ring.notice();
    }

    pub(crate) async fn send_gathers(&self, gathers: Vec<Gather>) -> (io::Result<()>, Vec<Gather>) {
        send::send_gathers(&self.ring, &self.handle, gathers).await
    }

    pub(crate) async fn send_at_once(
        &self,
        gathers: Vec<Gather>,
    ) -> (io::Result<Vec<u8>>, Vec<Gather>) {
        send::send_at_once(&self.ring, &self.handle, gathers).await
    }

    pub(crate) fn shutdown(&self) {
        self.handle.shutdown();
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn detach(self) -> DetachedSocket {
        assert!(
            self.receiver.is_idle() && matches!(self.handle.fixed.get(), Fixed::Untried),
            "a connection changes its core before its first receive or send"
        );
        let (peer, local) = (self.peer, self.local);
        let handle = self.handle.clone();
        drop(self); // the receiver's share goes with the socket
        DetachedSocket {
            fd: handle.into_fd(),
            peer,
            local,
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.receiver.abandon(&self.ring);
    }
}

/// Send: plain data and a descriptor.
pub(crate) struct DetachedSocket {
    fd: OwnedFd,
    peer: SocketAddr,
    local: SocketAddr,
}

impl DetachedSocket {
    pub(crate) fn attach(self, ring: Rc<Ring>) -> Socket {
        Socket::new(ring, self.fd, self.peer, self.local)
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }
}
