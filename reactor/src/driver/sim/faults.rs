//! What the simulated machines suffer from. The default is a healthy cluster with ordinary delays.

use std::time::Duration;

/// Pairs are bounds, both included; each single delay is drawn between them. Chances are parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// One way, per packet. Packets of one stream stay in order.
    pub net_delay: (Duration, Duration),
    /// Chance per packet that its connection is reset at both ends instead.
    pub drop_connection_ppm: u32,
    /// Per read, write, sync and offloaded call.
    pub disk_delay: (Duration, Duration),
    /// Chance per sync that it fails. Some of the data is durable then, and a later sync does not write the rest
    /// either: the page cache believes it is clean.
    pub fsync_error_ppm: u32,
    pub write_error_ppm: u32,
    pub read_error_ppm: u32,
    /// Size of every node's disk; beyond it allocating and growing writes fail.
    pub full_at_bytes: Option<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            net_delay: (Duration::from_micros(20), Duration::from_millis(2)),
            drop_connection_ppm: 0,
            disk_delay: (Duration::from_micros(20), Duration::from_millis(1)),
            fsync_error_ppm: 0,
            write_error_ppm: 0,
            read_error_ppm: 0,
            full_at_bytes: None,
        }
    }
}
