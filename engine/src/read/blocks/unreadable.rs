//! Records on sectors that cannot be read. A reader is told so for a while, in case it passes; after that it is let past
//! them, because what lies behind them is as good as ever.

use reactor::Instant;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long an error may take to pass: a path to the disk that changes over, a controller that starts again.
const MAY_PASS: Duration = Duration::from_secs(10);
/// So many are remembered.
const RECORDS_MAX: usize = 1024;

/// Since when records could not be read, by log offset.
#[derive(Default)]
pub struct Unreadable(Mutex<BTreeMap<u64, Instant>>);

impl Unreadable {
    /// The record could not be read now. Whether that was so long ago already.
    pub fn has_been_for_long(&self, log_offset: u64) -> bool {
        let now = reactor::turn_time();
        // Whole between any two statements.
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if since.len() == RECORDS_MAX && !since.contains_key(&log_offset) {
            since.pop_first();
        }
        let first = *since.entry(log_offset).or_insert(now);
        now.saturating_since(first) >= MAY_PASS
    }
}
