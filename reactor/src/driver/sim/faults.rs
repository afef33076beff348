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
    /// Chance per read that one bit of what it returns is wrong, this time.
    pub bit_flip_ppm: u32,
    /// Chance per page that it cannot be read, ever, until the file is gone.
    pub bad_page_ppm: u32,
    /// Chance per operation that the disk takes `slow_delay` for it.
    pub slow_ppm: u32,
    pub slow_delay: (Duration, Duration),
    /// Size of every node's disk; beyond it allocating and growing writes fail.
    pub full_at_bytes: Option<u64>,
}

/// How often a machine's disk met each of them, and what a power cut tears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    pub power_cuts: u64,
    /// Sectors that a cut left old although a newer one had been given to the disk.
    pub sectors_lost: u64,
    /// Pages of which a cut kept some sectors and lost others.
    pub pages_torn: u64,
    /// Changes of names that a cut undid.
    pub names_undone: u64,
    pub sync_errors: u64,
    pub write_errors: u64,
    pub read_errors: u64,
    pub bits_flipped: u64,
    pub bad_pages: u64,
    pub disk_full: u64,
    pub slow: u64,
}

impl Met {
    /// With the name of each, for a report.
    pub fn counts(&self) -> [(&'static str, u64); 11] {
        [
            ("power cuts", self.power_cuts),
            ("sectors lost", self.sectors_lost),
            ("pages torn", self.pages_torn),
            ("names undone", self.names_undone),
            ("sync errors", self.sync_errors),
            ("write errors", self.write_errors),
            ("read errors", self.read_errors),
            ("bits flipped", self.bits_flipped),
            ("bad pages", self.bad_pages),
            ("disk full", self.disk_full),
            ("slow operations", self.slow),
        ]
    }
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
            bit_flip_ppm: 0,
            bad_page_ppm: 0,
            slow_ppm: 0,
            slow_delay: (Duration::from_millis(50), Duration::from_millis(500)),
            full_at_bytes: None,
        }
    }
}
