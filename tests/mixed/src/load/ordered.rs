//! The messages of one key, each sent when the one before is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::{Shared, message};
use crate::stamp::{Kind, Stamp};

pub(super) async fn run(shared: Arc<Shared>, key: u16, rate: f64) {
    let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    while !shared.is_stopped() {
        ticks.tick().await;
        let stamp = Stamp {
            kind: Kind::Ordered,
            key,
            number,
            due_ms: 0,
        };
        let message = message(&stamp).sharding_key(format!("key-{key}"));
        let attempt = || shared.producer.send_keyed(message.clone());
        if !shared.send(&stamp, true, attempt).await {
            return;
        }
        number += 1;
    }
}
