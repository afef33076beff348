//! The name server: brokers register their topics, clients ask who serves a topic.
//!
//! ```text
//! connection.rs   bytes -> frame -> command ──► handlers/*  ──► routes.rs      who serves what, in memory only
//!                                                          └──► kv_config.rs   the one thing kept on disk
//! server.rs       accepts, looks for silent brokers and idle connections, sweeps, stops
//! ```
//!
//! Everything runs as tasks on one core of the reactor; nothing is shared, nothing is locked. Any number of name servers
//! serve a cluster, each unaware of the others: brokers register with all of them, clients ask any.

#![forbid(unsafe_code)]

pub mod config;
mod connection;
mod handlers;
mod json;
pub mod kv_config;
mod kv_file;
pub mod routes;
mod server;

pub use config::Config;
pub use server::NameServer;
