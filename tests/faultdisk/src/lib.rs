//! A disk that loses what was not synced, fails, fills up and slows down, and the proofs that run brokers on it.
//!
//! ```text
//!  broker ── FUSE ──► mount ──► disk ──► names, undo, blocks, faults      (backing directory: one object per file)
//!                                 └────► trace ──► replay: legal states after a cut ──► verify, with a real broker
//! ```
//!
//! Everything between `mount` and the backing directory is pure logic with tests beside it. Nothing here is part of
//! the product.

pub mod blocks;
pub mod broker;
pub mod chance;
pub mod client;
pub mod control;
pub mod disk;
pub mod error;
pub mod faults;
pub mod load;
pub mod mount;
pub mod names;
pub mod payload;
pub mod promises;
pub mod prove;
pub mod read_back;
pub mod replay;
pub mod sector;
pub mod signals;
pub mod trace;
pub mod undo;
