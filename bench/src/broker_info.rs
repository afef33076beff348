//! What a broker tells of itself (request 28): a table of names and values as text. Keys that only OrbitMQ has may be
//! absent; whoever asks for one says what follows then.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;

use crate::control::Control;
use crate::error::{Error, Result};

#[derive(Debug, Default, Deserialize)]
pub struct BrokerInfo {
    table: BTreeMap<String, String>,
}

impl BrokerInfo {
    /// Durable writes of the log, and the bytes they carried.
    pub const FLUSHES: &str = "orbitFlushes";
    pub const FLUSHED_BYTES: &str = "orbitFlushedBytes";
    /// Delayed messages that wait for their time.
    pub const TIMERS: &str = "timerCongestNum";
    pub const PUT_MESSAGES: &str = "putMessageTimesTotal";

    pub fn of(broker: SocketAddr) -> Result<BrokerInfo> {
        let body = Control::connect(broker)?.runtime_info()?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::Protocol(format!("runtime info of {broker}: {error}")))
    }

    pub fn number(&self, key: &str) -> Option<f64> {
        self.table.get(key)?.parse().ok()
    }

    /// How much a counter has grown; `None` if either does not tell.
    pub fn grown_since(&self, before: &BrokerInfo, key: &str) -> Option<f64> {
        Some(self.number(key)? - before.number(key)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(json: &str) -> BrokerInfo {
        serde_json::from_str(json).expect("a table")
    }

    #[test]
    fn counters_are_subtracted_and_an_absent_one_is_no_number() {
        let before = info(r#"{"table":{"putMessageTimesTotal":"5","runtime":"[ 0 days ]"}}"#);
        let after = info(r#"{"table":{"putMessageTimesTotal":"12"}}"#);
        assert_eq!(
            after.grown_since(&before, BrokerInfo::PUT_MESSAGES),
            Some(7.0)
        );
        assert_eq!(after.grown_since(&before, BrokerInfo::FLUSHES), None);
        assert_eq!(before.number("runtime"), None);
    }
}
