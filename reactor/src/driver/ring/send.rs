//! Sending: bytes of one vector, or gathers of many slices. The kernel is asked to send all of it and to wait inside
//! the ring while the peer's window is full; what it leaves over is sent by the next entry. Asked not to wait, it is done when the
//! entry was submitted, and what it leaves over is copied. A quiet send does not wait either, and says nothing when all is
//! sent, so that it does not end the core's sleep; what it leaves over is sent by entries that wait.

use std::io;
use std::ptr;
use std::rc::Rc;

use io_uring::opcode;
use io_uring::types::Fd;

use super::op::Keep;
use super::socket::Handle;
use super::{Ring, io_result};
use crate::gather::Gather;

const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
const QUIET_FLAGS: i32 = SEND_FLAGS | libc::MSG_DONTWAIT;
const AT_ONCE_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;

/// The kernel's bound on the slices of one call (IOV_MAX).
const SLICES_PER_CALL_MAX: usize = 1024;

/// One entry sends at most this much: its length field is 32 bits wide.
const BYTES_PER_CALL_MAX: usize = 1 << 30;

/// Sent gather states kept for reuse.
const SPARES_MAX: usize = 64;

/// Gathers with the addresses of their slices, as the kernel wants them. Does not move while the kernel reads it.
#[derive(Default)]
pub(super) struct GatherSend {
    gathers: Vec<Gather>,
    /// Everything still to be sent, in order; the first may be the rest of a slice.
    rest: Vec<libc::iovec>,
    /// How many of `rest` are done.
    done: usize,
    message: Option<libc::msghdr>,
}

impl GatherSend {
    fn load(&mut self, gathers: Vec<Gather>) {
        self.gathers = gathers;
        self.rest.clear();
        self.done = 0;
        let rest = &mut self.rest;
        for gather in &self.gathers {
            gather.for_each_slice(|bytes| {
                if !bytes.is_empty() {
                    rest.push(libc::iovec {
                        iov_base: bytes.as_ptr().cast_mut().cast(),
                        iov_len: bytes.len(),
                    });
                }
            });
        }
    }

    /// The next call's message, or None if all is sent.
    fn next_message(&mut self) -> Option<*const libc::msghdr> {
        let slices = &mut self.rest[self.done..];
        if slices.is_empty() {
            return None;
        }
        // SAFETY: an all-zero msghdr is an empty message.
        let message = self.message.insert(unsafe { std::mem::zeroed() });
        message.msg_iov = slices.as_mut_ptr();
        message.msg_iovlen = slices.len().min(SLICES_PER_CALL_MAX) as _;
        Some(ptr::from_ref(message))
    }

    /// A copy of what is still to be sent.
    fn copy_rest(&self) -> Vec<u8> {
        let rest = &self.rest[self.done..];
        let mut copy = Vec::with_capacity(rest.iter().map(|slice| slice.iov_len).sum());
        for slice in rest {
            // SAFETY: `load` and `advance` left it inside memory that `gathers` keeps, unchanged.
            copy.extend_from_slice(unsafe {
                std::slice::from_raw_parts(slice.iov_base.cast::<u8>(), slice.iov_len)
            });
        }
        copy
    }

    fn advance(&mut self, mut sent: usize) {
        while sent > 0 {
            let slice = &mut self.rest[self.done];
            if sent < slice.iov_len {
                // SAFETY: stays inside the slice.
                slice.iov_base = unsafe { slice.iov_base.cast::<u8>().add(sent) }.cast();
                slice.iov_len -= sent;
                return;
            }
            sent -= slice.iov_len;
            self.done += 1;
        }
    }
}

pub(super) async fn send_all(
    ring: &Rc<Ring>,
    handle: &Rc<Handle>,
    bytes: Vec<u8>,
) -> (io::Result<()>, Vec<u8>) {
    send_rest(ring, handle, bytes, 0).await
}

/// Like `send_all`, but that all is sent does not end the core's sleep.
pub(super) async fn send_quietly(
    ring: &Rc<Ring>,
    handle: &Rc<Handle>,
    bytes: Vec<u8>,
) -> (io::Result<()>, Vec<u8>) {
    if !ring.quiet.are_possible() {
        return send_all(ring, handle, bytes).await;
    }
    let (number, flags) = handle.target(ring);
    let len = bytes.len().min(BYTES_PER_CALL_MAX) as u32;
    let entry = opcode::Send::new(Fd(number), bytes.as_ptr(), len)
        .flags(QUIET_FLAGS)
        .build()
        .flags(flags);
    let keep = Keep::Bytes(handle.clone(), bytes);
    let (result, keep) = ring.start_quiet(keep, entry, len as i32).await;
    let Keep::Bytes(_, bytes) = keep else {
        unreachable!("a send gives its bytes back");
    };
    match progress(result) {
        Ok(sent) => send_rest(ring, handle, bytes, sent).await,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            send_rest(ring, handle, bytes, 0).await
        }
        Err(error) => (Err(error), bytes),
    }
}

async fn send_rest(
    ring: &Rc<Ring>,
    handle: &Rc<Handle>,
    mut bytes: Vec<u8>,
    mut sent: usize,
) -> (io::Result<()>, Vec<u8>) {
    while sent < bytes.len() {
        let (number, flags) = handle.target(ring);
        let rest = &bytes[sent..];
        let len = rest.len().min(BYTES_PER_CALL_MAX) as u32;
        let entry = opcode::Send::new(Fd(number), rest.as_ptr(), len)
            .flags(SEND_FLAGS)
            .build()
            .flags(flags);
        let (result, keep) = ring.start(Keep::Bytes(handle.clone(), bytes), entry).await;
        let Keep::Bytes(_, returned) = keep else {
            unreachable!("a send gives its bytes back");
        };
        bytes = returned;
        match progress(result) {
            Ok(count) => sent += count,
            Err(error) => return (Err(error), bytes),
        }
    }
    (Ok(()), bytes)
}

pub(super) async fn send_gathers(
    ring: &Rc<Ring>,
    handle: &Rc<Handle>,
    gathers: Vec<Gather>,
) -> (io::Result<()>, Vec<Gather>) {
    let mut state = ring.gather_spares.borrow_mut().pop().unwrap_or_default();
    state.load(gathers);
    let mut outcome = Ok(());
    while let Some(message) = state.next_message() {
        let result;
        (result, state) = send_message(ring, handle, state, message, SEND_FLAGS).await;
        match progress(result) {
            Ok(count) => state.advance(count),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    (outcome, put_away(ring, state))
}

pub(super) async fn send_at_once(
    ring: &Rc<Ring>,
    handle: &Rc<Handle>,
    gathers: Vec<Gather>,
) -> (io::Result<Vec<u8>>, Vec<Gather>) {
    let mut state = ring.gather_spares.borrow_mut().pop().unwrap_or_default();
    state.load(gathers);
    let mut outcome = Ok(Vec::new());
    if let Some(message) = state.next_message() {
        let result;
        (result, state) = send_message(ring, handle, state, message, AT_ONCE_FLAGS).await;
        outcome = match progress(result) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            sent => {
                state.advance(sent.unwrap_or(0));
                Ok(state.copy_rest())
            }
        };
    }
    (outcome, put_away(ring, state))
}

/// `message` is in `state`.
async fn send_message(
    ring: &Rc<Ring>,
    handle: &Rc<Handle>,
    state: Box<GatherSend>,
    message: *const libc::msghdr,
    send_flags: i32,
) -> (i32, Box<GatherSend>) {
    let (number, flags) = handle.target(ring);
    let entry = opcode::SendMsg::new(Fd(number), message)
        .flags(send_flags as u32)
        .build()
        .flags(flags);
    let (result, keep) = ring
        .start(Keep::Gathers(handle.clone(), state), entry)
        .await;
    let Keep::Gathers(_, state) = keep else {
        unreachable!("a send of gathers gives its state back");
    };
    (result, state)
}

/// Empties what was sent, for the next answers.
fn put_away(ring: &Ring, mut state: Box<GatherSend>) -> Vec<Gather> {
    let mut gathers = std::mem::take(&mut state.gathers);
    gathers.iter_mut().for_each(Gather::clear);
    state.rest.clear();
    let mut spares = ring.gather_spares.borrow_mut();
    if spares.len() < SPARES_MAX {
        spares.push(state);
    }
    gathers
}

/// A send that was interrupted, or that moved nothing without saying why, is simply repeated or refused.
fn progress(result: i32) -> io::Result<usize> {
    match io_result(result) {
        Ok(0) => Err(io::Error::from(io::ErrorKind::WriteZero)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_send_goes_on_where_it_stopped() {
        let mut state = GatherSend::default();
        let gather = |head: &[u8]| Gather {
            head: head.to_vec(),
            ..Gather::default()
        };
        state.load(vec![gather(b"abcdef"), gather(b""), gather(b"gh")]);
        let base = state.gathers[0].head.as_ptr();
        state.advance(4);
        assert!(state.next_message().is_some());
        assert_eq!(
            state.rest[0].iov_base.cast::<u8>().cast_const(),
            base.wrapping_add(4)
        );
        assert_eq!(state.rest[0].iov_len, 2);
        state.advance(3);
        let message = state.next_message().expect("one byte is left");
        // SAFETY: the message lives in `state`.
        assert_eq!(unsafe { (*message).msg_iovlen }, 1);
        assert_eq!(state.rest[1].iov_len, 1);
        state.advance(1);
        assert!(state.next_message().is_none());
    }
}
