//! Queues of ordered consumers, locked and unlocked.

use std::rc::Rc;

use protocol::Command;
use protocol::body::Body;
use protocol::body::lock::{LockBatchAnswer, LockBatchRequest};
use protocol::json::Dialect;

use super::{Answer, Handled};
use crate::coordinator::{Coordinator, now_ms};

/// 41: answers with those queues that the client holds now.
pub fn lock(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let request = LockBatchRequest::from_json(command.body)?;
    let held = coordinator.tables().locks.lock(
        &request.consumer_group,
        &request.client_id,
        &request.mq_set,
        now_ms(),
    );
    coordinator.locks_changed();
    let answer = LockBatchAnswer {
        lock_ok_mq_set: held,
    };
    Ok(Answer::with_body(answer.to_json(Dialect::Fastjson1)).into())
}

/// 42
pub fn unlock(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let request = LockBatchRequest::from_json(command.body)?;
    coordinator
        .tables()
        .locks
        .unlock(&request.consumer_group, &request.client_id, &request.mq_set);
    coordinator.locks_changed();
    Ok(Answer::ok().into())
}
