//! What is seen of the broker from outside: its memory, what its log says, and what the machine does meanwhile.

pub mod hiccups;
pub mod log;
pub mod memory;
pub mod waits;
