//! Bytes in and out: who may connect, what a connection's task does, how records travel to a socket.

pub mod connection;
pub mod listener;
pub mod transfer;
