//! What a consumer does by itself: heartbeats, routes, commits, shares, locks, and answers to what brokers ask.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Shared;
use crate::connection::Asked;
use crate::consumer::locks::RENEW_INTERVAL;

/// Queues of ours that another member still holds are asked for again so soon.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Until the consumer is shut down.
pub(super) async fn run(shared: Arc<Shared>, mut asked: mpsc::Receiver<Asked>) {
    let session = &shared.member.session;
    let every = |period| tokio::time::interval_at(Instant::now() + period, period);
    let mut routes = every(session.settings.route_interval);
    let mut heartbeats = every(session.settings.heartbeat_interval);
    let mut commits = every(shared.options.joining.commit_interval);
    let mut locks = every(RENEW_INTERVAL);
    let mut rebalances = tokio::time::interval(shared.options.joining.rebalance_interval);
    let mut again: Option<Instant> = None;
    loop {
        let settled = tokio::select! {
            _ = routes.tick() => {
                session.routes.refresh_all(&session.connections).await;
                continue;
            }
            _ = heartbeats.tick() => {
                session.heartbeat(&shared.member.heartbeat_data(), false).await;
                continue;
            }
            _ = commits.tick() => {
                shared.commit(None).await;
                continue;
            }
            _ = locks.tick(), if shared.needs_locks() => match shared.renew_locks().await {
                true => continue,
                false => false,
            },
            Some(asked) = asked.recv() => {
                shared.answer(asked).await;
                continue;
            }
            _ = rebalances.tick() => shared.rebalance().await,
            () = shared.rebalance.notified() => shared.rebalance().await,
            () = sleep_until(again), if again.is_some() => shared.rebalance().await,
        };
        again = (!settled).then(|| Instant::now() + LOCK_RETRY_INTERVAL);
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
