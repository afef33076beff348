//! Receiving: what a consumer is asked for and told. [`PushConsumer`] pulls in the background and calls a listener for
//! every message, [`LitePullConsumer`] hands messages out when it is asked for them, [`PullConsumer`] does one pull.
//!
//! ```text
//! PushConsumer ─┬─ Member ────── who is in the group, which queues are ours
//!               ├─ Puller ────── one a queue: pull → ProcessQueue → listener
//!               └─ Offsets ───── how far each queue is done, told to the broker or kept in a file
//! ```

mod asked;
mod joining;
mod lite;
mod local_offsets;
mod locks;
mod member;
mod offsets;
mod options;
mod process_queue;
mod pull;
mod pull_consumer;
mod push;
mod rebalance;
mod running;
mod stats;

use std::sync::Arc;
use std::time::Duration;

use crate::caught::BoxFuture;
use crate::received::Received;

pub use self::joining::ConsumeFrom;
pub use self::lite::{LitePullConsumer, LitePullConsumerBuilder};
pub use self::options::PushConsumerBuilder;
pub(crate) use self::pull::Pull;
pub use self::pull_consumer::{PullConsumer, PullConsumerBuilder, PullStatus, Pulled};
pub use self::push::PushConsumer;
pub use self::rebalance::Allocation;

/// What a listener made of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumed {
    Done,
    /// Deliver it again, later each time: the broker keeps it in the group's retry topic meanwhile, and in the
    /// dead-letter topic after `maxReconsumeTimes` deliveries.
    Later,
    /// Deliver it again after one of the broker's delay levels: 1 (1 s) to 18 (2 h). 0 is the same as [`Consumed::Later`];
    /// below 0 it goes to the dead-letter topic at once.
    LaterAt(i32),
}

/// What a listener of an orderly consumer made of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordered {
    Done,
    /// Deliver it again after `suspendCurrentQueueTimeMillis`, and nothing else of its queue before.
    Suspend,
    /// The same after a time of its own, 10 ms to 30 s.
    SuspendFor(Duration),
}

/// Who is called for messages.
#[derive(Clone)]
pub(crate) enum Listener {
    Concurrent(Arc<dyn Fn(Vec<Received>) -> BoxFuture<Consumed> + Send + Sync>),
    Orderly(Arc<dyn Fn(Received) -> BoxFuture<Ordered> + Send + Sync>),
}

impl Listener {
    pub fn is_orderly(&self) -> bool {
        matches!(self, Listener::Orderly(_))
    }
}
