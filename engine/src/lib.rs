//! The store: a CommitLog in Apache RocketMQ's format, with an index of our own beside it.
//!
//! ```text
//!   shard                     writer's core                               disk
//!   Batch ──── mailbox ────►  Writer::append ── memcpy ──► Segment map ─► commitlog/00000000000000000000
//!                             ├─ entry ──────► ActiveIndex ── spill ────► orbit/….part, sealed: orbit/….index
//!                             └─ publish: written, queue ends, wakes
//!   Store::read  ◄── lock-free: queue end, index entry, slices of the map ──┘
//!   Store::fetch ◄── asynchronous reads of what is cold
//! ```
//!
//! One core writes (it owns the [`Writer`]); any core reads through the shared [`Store`]. The log is the only
//! truth: every file in `orbit/` is derived, checksummed, and rebuilt from the log when missing or damaged.
//! `flushed <= written`, always; what a reader is shown lies below `written`.

mod ahead;
mod append;
mod batch;
pub mod check;
mod checkpoint;
mod commit_log;
mod config;
mod dispatch;
mod flush;
mod key_index;
mod layout;
mod queue;
mod queue_index;
mod read;
mod reclaim;
mod recovery;
mod release;
mod segment;
mod segments;
mod store;
mod time_lookup;
mod window;
mod writer;

pub use append::AppendError;
pub use batch::{Batch, Item};
pub use commit_log::{FlushStats, Poison, ReleaseAt};
pub use config::{
    Config, FlushConfig, FlusherKind, SEGMENT_BYTES_DEFAULT, WindowConfig, WindowDir,
};
pub use key_index::{KeyAnswer, KeyKind, KeyQuery};
pub use queue::Queue;
pub use read::{Accept, Cold, Found, Read, ReadLimits};
pub use reclaim::{Ask, Pressure, Retention};
pub use recovery::Progress;
pub use recovery::files::segment_bytes as found_segment_bytes;
pub use release::Release;
pub use store::{OpenError, Store};
pub use time_lookup::Boundary;
pub use window::names::IdleWindow;
pub use writer::Writer;

/// A byte position in the commit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogOffset(pub u64);

/// A message's place in its queue: 0, 1, 2, ...
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueOffset(pub u64);

/// The dense number of a queue in this process. It changes from run to run and is never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueNo(pub u32);
