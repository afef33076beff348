//! Messages in no order: at once, at a time, or after one of the broker's delay levels.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use client::Message;

use super::{Shared, message};
use crate::clock::now_ms;
use crate::lock::lock;
use crate::stamp::{Kind, Stamp};

/// How far ahead a timed message is due at least.
const AHEAD_MS_MIN: i64 = 100;
/// Of the delayed messages, one of so many goes by a level.
const LEVELS_EVERY: u64 = 4;
/// Levels 1 to 3, as RocketMQ sets them.
const LEVEL_MS: [i64; 3] = [1_000, 5_000, 10_000];

pub(super) async fn plain(shared: Arc<Shared>, rate: f64) {
    let sending = shared.clone();
    let begin = |permit| {
        let shared = sending.clone();
        tokio::spawn(async move {
            let number = lock(&shared.ledger).begin(Kind::Plain);
            let stamp = Stamp {
                kind: Kind::Plain,
                key: 0,
                number,
                due_ms: 0,
            };
            send(&shared, &stamp, message(&stamp)).await;
            drop(permit);
        });
    };
    shared.pace(rate, begin).await;
}

pub(super) async fn delayed(shared: Arc<Shared>, rate: f64, ahead: Duration) {
    let sending = shared.clone();
    let ahead_ms_max = ahead.as_millis() as i64;
    let begin = |permit| {
        let shared = sending.clone();
        tokio::spawn(async move {
            let (stamp, message) = delayed_message(&shared, ahead_ms_max);
            send(&shared, &stamp, message).await;
            drop(permit);
        });
    };
    shared.pace(rate, begin).await;
}

fn delayed_message(shared: &Shared, ahead_ms_max: i64) -> (Stamp, Message) {
    let is_level = fastrand::u64(..LEVELS_EVERY) == 0;
    let kind = match is_level {
        true => Kind::Level,
        false => Kind::Timed,
    };
    let number = lock(&shared.ledger).begin(kind);
    let level = fastrand::usize(..LEVEL_MS.len());
    let ahead_ms = match is_level {
        // From when the broker stores it, which is later than now.
        true => LEVEL_MS[level],
        false => fastrand::i64(AHEAD_MS_MIN..=ahead_ms_max),
    };
    let stamp = Stamp {
        kind,
        key: 0,
        number,
        due_ms: now_ms() + ahead_ms,
    };
    let message = message(&stamp);
    let message = match is_level {
        true => message.delay_level(level as u32 + 1),
        false => message.deliver_at(UNIX_EPOCH + Duration::from_millis(stamp.due_ms as u64)),
    };
    (stamp, message)
}

/// Every second message that is in doubt is sent again, the others are left in doubt.
async fn send(shared: &Shared, stamp: &Stamp, message: Message) {
    let insists = stamp.number.is_multiple_of(2);
    let attempt = || shared.producer.send(message.clone());
    shared.send(stamp, insists, attempt).await;
}
