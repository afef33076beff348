//! The broker: RocketMQ to its clients, shards around one writer inside.
//!
//! ```text
//! broker.rs        start and stop, in order
//! net, shard       connections, and the core that owns them ──► handlers/send, handlers/pull, long_poll
//! writer           the one core that appends
//! coordinator      topics, groups, offsets, members, locks ──► every other handler, registration, delay, transaction
//! check            verifies a store that nobody has open
//! doctor           what the broker needs of a machine, examined without starting it
//! ```
//!
//! What crosses cores is in `messages.rs`; `request.rs` is the table of contents of the protocol.

pub mod broker;
pub mod check;
pub mod clients;
pub mod config;
pub mod coordinator;
pub mod delay;
pub mod doctor;
pub mod filter;
pub mod groups;
pub mod handlers;
pub mod health;
pub mod internal;
pub mod long_poll;
mod memory;
pub mod messages;
pub mod net;
pub mod offsets;
pub mod pop;
pub mod published;
pub mod queue_locks;
mod reading;
pub mod registration;
pub mod request;
pub mod request_inbox;
pub mod resets;
pub mod shard;
pub mod static_topics;
pub mod stats;
pub mod topics;
pub mod transaction;
pub mod writer;

pub use broker::{Broker, StartError};
pub use config::Settings;
