//! The two bodies behind every socket, file and clock: the ring and its simulated twin.

pub(crate) mod ring;
pub mod sim;
