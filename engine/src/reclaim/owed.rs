//! Who still needs messages that lie in a segment which is about to go.
//!
//! A delayed message that is not due yet exists in the log only. Before its segment goes, whoever will deliver it
//! is asked to append it again; the segment stays until everybody who was asked has said yes.

use crate::LogOffset;
use reactor::mailbox::{self, Receiver, Reply, Sender, oneshot};
use std::sync::{Mutex, PoisonError};

/// One question at a time.
const QUESTIONS_MAX: usize = 1;

/// "Everything below is about to go. Is anything of it still needed?"
pub struct Ask {
    pub below: LogOffset,
    /// `true`: nothing, or it has been appended again. `false`, or dropping it: the segment has to stay for now.
    pub settled: Reply<bool>,
}

/// Those who are asked. Any core may join, the writer's core asks.
#[derive(Default)]
pub(crate) struct Owed {
    asked: Mutex<Vec<Sender<Ask>>>,
}

impl Owed {
    pub fn join(&self) -> Receiver<Ask> {
        let (sender, receiver) = mailbox::channel(QUESTIONS_MAX);
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(sender);
        receiver
    }

    /// Whether everything below may go. Takes as long as appending it again takes.
    pub async fn settle(&self, below: LogOffset) -> bool {
        let asked: Vec<Sender<Ask>> = {
            let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.iter().cloned().collect()
        };
        for sender in asked {
            let (settled, answer) = oneshot();
            if sender.send(Ask { below, settled }).await.is_err() {
                return false; // It is stopping, with messages to be delivered after the next start.
            }
            if answer.await != Some(true) {
                return false;
            }
        }
        true
    }
}
