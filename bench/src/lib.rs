//! What the harness shares with other programs that prove things of a broker: servers as child processes, what a process
//! costs, how late the machine wakes a thread. Everything else is `orbit-bench`'s own.

pub mod child;
pub mod error;
pub mod process;
pub mod wakeups;
