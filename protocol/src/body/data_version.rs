//! The version of a table: how often it has changed, and when last.

use serde::{Deserialize, Serialize};

/// Says which of two tables is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    pub counter: i64,
    /// The epoch of the replica group (5.x).
    pub state_version: i64,
    /// When it last changed, in milliseconds.
    pub timestamp: i64,
}

impl DataVersion {
    /// The version after one more change at `now_ms`.
    pub fn next(self, now_ms: i64) -> DataVersion {
        DataVersion {
            counter: self.counter + 1,
            timestamp: now_ms,
            ..self
        }
    }
}
