//! The time that messages carry: milliseconds since 1970, on the machine that the broker runs on as well.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub fn since_1970() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

pub fn now_ms() -> i64 {
    since_1970().as_millis() as i64
}
