//! The coordinator's mailbox as connections see it: bounded in bytes as well as in messages, for any request may be a frame
//! of 16 MiB.
//!
//! Senders add what they send, the coordinator takes it away again. Who finds too much in there waits behind a marker: the
//! coordinator answers it once it has taken everything in front of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reactor::mailbox::{Sender, TrySendError, oneshot};

use crate::messages::ToCoordinator;

/// More than this in frames, and nobody adds to it.
const BYTES_MAX: usize = 32 << 20;

/// One for all cores.
#[derive(Clone)]
pub struct RequestInbox {
    coordinator: Sender<ToCoordinator>,
    bytes: Arc<AtomicUsize>,
}

impl RequestInbox {
    pub fn new(coordinator: Sender<ToCoordinator>) -> Self {
        Self {
            coordinator,
            bytes: Arc::default(),
        }
    }

    /// Hands the message back if there is no room. A coordinator that is gone has stopped: what is for it is dropped.
    pub fn try_send(&self, message: ToCoordinator) -> Result<(), ToCoordinator> {
        if self.is_full() {
            return Err(message);
        }
        let bytes = self.add(&message);
        match self.coordinator.try_send(message) {
            Err(TrySendError::Full(message)) => {
                self.taken(bytes);
                Err(message)
            }
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Waits for room. False if the coordinator is gone.
    pub async fn send(&self, message: ToCoordinator) -> bool {
        // Who has waited looks again: another connection may have been faster.
        while self.is_full() {
            let (reply, reached) = oneshot();
            let marker = ToCoordinator::Reached(reply);
            if self.coordinator.send(marker).await.is_err() || reached.await.is_none() {
                return false;
            }
        }
        self.add(&message);
        self.coordinator.send(message).await.is_ok()
    }

    /// The coordinator has taken a frame of this many bytes.
    pub fn taken(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= BYTES_MAX
    }

    fn add(&self, message: &ToCoordinator) -> usize {
        let bytes = match message {
            ToCoordinator::Request { frame, .. } => frame.len(),
            _ => 0,
        };
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::net::SocketAddr;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use reactor::mailbox::{self, Receiver};

    use super::*;
    use crate::messages::ConnId;

    const FRAME_BYTES: usize = 8 << 20;

    fn request() -> ToCoordinator {
        ToCoordinator::Request {
            conn: ConnId {
                shard: 0,
                slot: 0,
                generation: 0,
            },
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            frame: vec![0; FRAME_BYTES],
        }
    }

    /// What the coordinator does with everything that waits.
    fn take_all(inbox: &RequestInbox, waiting: &mut Receiver<ToCoordinator>) {
        while let Some(message) = waiting.try_recv() {
            match message {
                ToCoordinator::Request { frame, .. } => inbox.taken(frame.len()),
                ToCoordinator::Reached(reply) => reply.send(()),
                _ => unreachable!("nothing else was sent"),
            }
        }
    }

    #[test]
    fn large_requests_wait_long_before_there_are_many() {
        let (sender, mut waiting) = mailbox::channel(4096);
        let inbox = RequestInbox::new(sender);
        let mut taken_in = 0;
        while inbox.try_send(request()).is_ok() {
            taken_in += 1;
        }
        assert_eq!(taken_in, BYTES_MAX / FRAME_BYTES);

        let mut context = Context::from_waker(Waker::noop());
        let mut late = pin!(inbox.send(request()));
        assert!(late.as_mut().poll(&mut context).is_pending());
        take_all(&inbox, &mut waiting);
        assert_eq!(late.as_mut().poll(&mut context), Poll::Ready(true));
        take_all(&inbox, &mut waiting);
        assert_eq!(inbox.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_full_mailbox_counts_no_bytes_that_did_not_go_in() {
        let (sender, mut waiting) = mailbox::channel(2);
        let inbox = RequestInbox::new(sender);
        while inbox.try_send(request()).is_ok() {}
        take_all(&inbox, &mut waiting);
        assert_eq!(inbox.bytes.load(Ordering::Relaxed), 0);
    }
}
