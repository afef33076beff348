//! What the broker counts: totals of each shard here, and what goes on by topic and by group in the rooms below.
//!
//! ```text
//! shard: Tally (plain numbers, one entry for what changed) ── once a second ──► coordinator: Figures (minute, hour, day)
//! ```
//!
//! The totals are one block per shard, written by its core alone, read by whoever reports.

pub mod figures;
pub mod latencies;
pub mod pulled;
pub mod series;
pub mod tally;

use std::sync::atomic::{AtomicU64, Ordering};

/// Lives on all cores.
#[derive(Debug)]
pub struct Stats {
    shards: Box<[ShardStats]>,
}

/// Written by one core, but for the connections: relaxed loads and stores, a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardStats {
    /// Also written by the core that hands new connections out.
    pub connections: SharedCounter,
    pub put_messages: Counter,
    pub put_bytes: Counter,
    pub put_failed: Counter,
    pub get_messages: Counter,
    pub get_bytes: Counter,
    /// Pulls that found something, and those that did not.
    pub get_found: Counter,
    pub get_missed: Counter,
    pub parked_pulls: Counter,
    /// Connections closed for what they sent: broken frames, headers, sizes.
    pub broken_connections: Counter,
}

/// Sums over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub connections: u64,
    pub put_messages: u64,
    pub put_bytes: u64,
    pub put_failed: u64,
    pub get_messages: u64,
    pub get_bytes: u64,
    pub get_found: u64,
    pub get_missed: u64,
    pub parked_pulls: u64,
    pub broken_connections: u64,
}

impl Stats {
    pub fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| ShardStats::default()).collect(),
        }
    }

    pub fn shard(&self, shard: u16) -> &ShardStats {
        &self.shards[usize::from(shard)]
    }

    /// The shard with the fewest connections; the lowest number among equals.
    pub fn least_loaded(&self) -> u16 {
        let (shard, _) = self
            .shards
            .iter()
            .enumerate()
            .min_by_key(|(_, stats)| stats.connections.get())
            .expect("a broker has at least one shard");
        u16::try_from(shard).expect("shards are numbered in 16 bits")
    }

    pub fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        for shard in &self.shards {
            sum.connections += shard.connections.get();
            sum.put_messages += shard.put_messages.get();
            sum.put_bytes += shard.put_bytes.get();
            sum.put_failed += shard.put_failed.get();
            sum.get_messages += shard.get_messages.get();
            sum.get_bytes += shard.get_bytes.get();
            sum.get_found += shard.get_found.get();
            sum.get_missed += shard.get_missed.get();
            sum.parked_pulls += shard.parked_pulls.get();
            sum.broken_connections += shard.broken_connections.get();
        }
        sum
    }
}

/// A number that one core changes and others read: no locked instruction on the way of a message.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn add(&self, more: u64) {
        self.0
            .store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    pub fn sub(&self, less: u64) {
        self.0
            .store(self.get().wrapping_sub(less), Ordering::Relaxed);
    }
}

/// A number that several cores change, seldom.
#[derive(Debug, Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_connections_go_to_the_emptiest_shard() {
        let stats = Stats::new(3);
        assert_eq!(stats.least_loaded(), 0);
        stats.shard(0).connections.add(2);
        stats.shard(1).connections.add(1);
        assert_eq!(stats.least_loaded(), 2);
        stats.shard(2).connections.add(1);
        assert_eq!(stats.least_loaded(), 1);
    }

    #[test]
    fn totals_add_up_over_shards() {
        let stats = Stats::new(2);
        stats.shard(0).put_messages.add(5);
        stats.shard(1).put_messages.add(7);
        assert_eq!(stats.totals().put_messages, 12);
    }
}
