//! A thread-per-core reactor: one ring, one executor and one set of timers per core, and a simulated twin of all of it.
//!
//! ```text
//!   tasks ── spawn, sleep, Notify ──► task.rs timer.rs notify.rs      the executor of one core, single-threaded
//!     │
//!     ├─ Socket Listener File fs Outbox Frames                         what programs use; they do not know which driver runs
//!     │        │
//!     │        ├─► driver/ring    io_uring: multishot accept and receive, provided buffers, one system call per turn
//!     │        └─► driver/sim     one thread, one seed: simulated clock, network and disk
//!     └─ mailbox ─────────────► another core
//! ```
//!
//! Which driver serves a call is decided by the core the calling task runs on. Nothing here knows what is sent or stored.

#[cfg(not(target_os = "linux"))]
compile_error!("the reactor is built on io_uring and runs on Linux only");

mod affinity;
mod buffer;
mod cache;
mod chunk;
mod core;
mod driver;
mod file;
mod frames;
pub mod fs;
mod gather;
mod launch;
mod limits;
mod looped_memory;
pub mod mailbox;
mod mapping;
mod notify;
mod offload;
mod outbox;
mod random;
pub mod signals;
mod socket;
mod task;
mod time;
mod timer;

pub use affinity::{cpu_count, usable_cpus};
pub use buffer::Buffer;
pub use chunk::Chunk;
pub use core::{CoreStats, bulk_turn, core_stats, random, spawn, spawn_urgent, stalls};
pub use driver::sim;
pub use file::{File, LoopedPart, OpenOptions, is_of_medium};
pub use frames::{FeedError, Frames};
pub use fs::LockFile;
pub use gather::{Copies, Gather, Lent, Slice, Source};
pub use launch::{CoreConfig, CoreHandle, Panicked, StartError, Unsupported, launch, probe, run};
pub use limits::{boot_id, is_in_container, raise_open_files};
pub use looped_memory::LoopedMemory;
pub use mapping::Mapping;
pub use notify::Notify;
pub use offload::{offload, offload_bulk, offload_remote};
pub use outbox::Outbox;
pub use socket::{DetachedSocket, Listener, Socket};
pub use task::{Task, yield_now};
pub use time::{Instant, local_hour, now, turn_time, wall_ms};
pub use timer::{Elapsed, Sleep, sleep, sleep_until, timeout};
