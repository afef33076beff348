//! An async client for OrbitMQ and Apache RocketMQ, on Tokio.
//!
//! [`Producer`] and [`TransactionProducer`] send; [`PushConsumer`], [`LitePullConsumer`] and [`PullConsumer`] receive. All
//! find their brokers through the name servers, keep looking for changes, and need nothing but an address and the name of
//! a group. [`admin`] is what operators do. Settings have RocketMQ's defaults, and can be set by RocketMQ's names for
//! them: [`ProducerBuilder::set`], [`PushConsumerBuilder::set`].
//!
//! ```text
//! Producer ─┐             ┌─ Routes ──────── name servers
//!           ├─ Session ───┤
//! Consumer ─┘             └─ Connections ─── one Connection a broker, any number of requests under way
//! ```

#![forbid(unsafe_code)]

mod address_server;
pub mod admin;
mod caught;
mod compression;
mod connection;
mod connections;
mod consumer;
mod error;
mod filter;
mod lock;
mod message;
mod message_id;
mod namespace;
mod producer;
mod received;
mod routes;
mod session;
mod settings;
pub mod time;
mod trace;

pub use consumer::{
    Allocation, ConsumeFrom, Consumed, LitePullConsumer, LitePullConsumerBuilder, Ordered,
    PullConsumer, PullConsumerBuilder, PullStatus, Pulled, PushConsumer, PushConsumerBuilder,
};
pub use error::{Error, Result};
pub use filter::Filter;
pub use message::Message;
pub use producer::{
    Outcome, Producer, ProducerBuilder, Receipt, Stored, Submitted, TransactionProducer,
    TransactionProducerBuilder, TransactionReceipt,
};
pub use protocol::body::queue::MessageQueue;
pub use protocol::sysflag::Compression;
pub use received::Received;
