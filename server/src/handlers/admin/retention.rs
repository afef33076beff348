//! Reclaim by request: what `mqadmin deleteExpiredCommitLog` and `cleanExpiredCQ` send.

use std::rc::Rc;

use crate::coordinator::Coordinator;
use crate::handlers::{Answer, Caller, Handled};

/// 329: log files that have expired go soon, whatever the hour.
pub fn delete_expired(coordinator: &Rc<Coordinator>, caller: Caller) -> Handled {
    tracing::warn!(peer = %caller.peer, "log files that have expired are to be deleted now");
    coordinator.shared.store.reclaim_expired();
    Ok(Answer::ok().into())
}

/// 306: the index of a segment goes together with it, so there is never anything to clean.
pub fn clean_queues() -> Handled {
    Ok(Answer::ok().into())
}

/// 316: a deleted topic leaves nothing behind but its messages, which go with their segment.
pub fn clean_topics() -> Handled {
    Ok(Answer::ok().into())
}
