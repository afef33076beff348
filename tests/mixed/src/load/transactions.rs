//! Half messages: committed, rolled back, or left open until the broker asks; of those some are answered only when it
//! asks once more. What becomes of one stands in its body, so that any answer is the same.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use client::{Outcome, Received, TransactionProducer};

use super::{Figures, SEND_LIMIT, Shared, message};
use crate::lock::lock;
use crate::stamp::{Kind, Stamp};

/// In a hundred.
const ROLLED_BACK: u64 = 20;
const COMMITTED_LATER: u64 = 10;
const ROLLED_BACK_LATER: u64 = 5;
/// Of those that are left open, one of so many is answered only when it is asked about a second time.
const HESITANT_EVERY: u64 = 3;

pub(super) async fn start(
    name_server: &str,
    figures: Arc<Figures>,
) -> client::Result<TransactionProducer> {
    let hesitated = Arc::new(Mutex::new(HashSet::new()));
    let check = move |half: Received| {
        figures.asked.fetch_add(1, Ordering::Relaxed);
        let outcome = match Stamp::parse(&half.body) {
            Some(stamp) if hesitates(&stamp, &mut lock(&hesitated)) => Outcome::Unknown,
            Some(stamp) if stamp.kind.is_rolled_back() => Outcome::Rollback,
            Some(_) => Outcome::Commit,
            None => Outcome::Rollback,
        };
        async move { outcome }
    };
    TransactionProducer::builder("mixed-transactions")
        .name_server(name_server)
        // Each attempt would be a transaction of its own.
        .with(|producer| producer.retries(0).send_timeout(SEND_LIMIT))
        .start(check)
        .await
}

fn hesitates(stamp: &Stamp, hesitated: &mut HashSet<u64>) -> bool {
    stamp.number.is_multiple_of(HESITANT_EVERY)
        && !hesitated.remove(&stamp.number)
        && hesitated.insert(stamp.number)
}

pub(super) async fn run(shared: Arc<Shared>, rate: f64) {
    let sending = shared.clone();
    let begin = |permit| {
        let shared = sending.clone();
        tokio::spawn(async move {
            send(&shared).await;
            drop(permit);
        });
    };
    shared.pace(rate, begin).await;
}

async fn send(shared: &Shared) {
    let kind = kind();
    let stamp = Stamp {
        kind,
        key: 0,
        number: lock(&shared.ledger).begin(kind),
        due_ms: 0,
    };
    let decided = match kind {
        Kind::Commit => Outcome::Commit,
        Kind::Rollback => Outcome::Rollback,
        _ => Outcome::Unknown,
    };
    let attempt = || {
        let half = message(&stamp);
        let sending = shared
            .transactions
            .send(half, move |_| async move { decided });
        async move { Ok(sending.await?.half) }
    };
    // A half message that is in doubt is left to the broker's question.
    shared.send(&stamp, false, attempt).await;
}

fn kind() -> Kind {
    match fastrand::u64(..100) {
        low if low < ROLLED_BACK => Kind::Rollback,
        low if low < ROLLED_BACK + COMMITTED_LATER => Kind::CommitLater,
        low if low < ROLLED_BACK + COMMITTED_LATER + ROLLED_BACK_LATER => Kind::RollbackLater,
        _ => Kind::Commit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hesitant_answer_comes_the_second_time() {
        let mut hesitated = HashSet::new();
        let mut of = |number| {
            let stamp = Stamp {
                kind: Kind::CommitLater,
                key: 0,
                number,
                due_ms: 0,
            };
            hesitates(&stamp, &mut hesitated)
        };
        assert_eq!(
            [of(3), of(3), of(4), of(6), of(6)],
            [true, false, false, true, false]
        );
    }
}
