//! An async client for OrbitMQ and Apache RocketMQ, on Tokio.
//!
//! [`Producer`] sends, [`PushConsumer`] receives. Both find their brokers through the name servers, keep looking for
//! changes, and need nothing but an address and the name of a group.
//!
//! ```text
//! Producer ─┐             ┌─ Routes ──────── name servers
//!           ├─ Session ───┤
//! Consumer ─┘             └─ Connections ─── one Connection a broker, any number of requests under way
//! ```

#![forbid(unsafe_code)]

mod connection;
mod connections;
mod consumer;
mod error;
mod lock;
mod message;
mod message_id;
mod producer;
mod routes;
mod session;

pub use consumer::{Consumed, PushConsumer, PushConsumerBuilder};
pub use error::{Error, Result};
pub use message::{Message, Received};
pub use producer::{Producer, ProducerBuilder, Receipt, Stored, Submitted};
