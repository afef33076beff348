//! 37: a producer decides, and 323: an operator wants a transaction asked about again that was given up.

use std::rc::Rc;

use engine::LogOffset;
use protocol::code::response;
use protocol::header::message::{EndTransaction, ResumeCheck};
use protocol::names::TRANS_CHECK_MAX_TIME_TOPIC;
use protocol::record::{View, parse_message_id};
use protocol::{Command, sysflag};
use reactor::mailbox::oneshot;

use super::{Decision, half};
use crate::coordinator::Coordinator;
use crate::handlers::{Answer, Caller, Handled, Reply, refuse};
use crate::internal::Appender;
use crate::messages::Refusal;

/// 37, one-way from stock clients.
pub fn decision(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let header = EndTransaction::from(command)?;
    let commit = match header.decision {
        sysflag::TRANSACTION_COMMIT => true,
        sysflag::TRANSACTION_ROLLBACK => false,
        sysflag::TRANSACTION_NONE => {
            tracing::debug!(group = %header.producer_group, peer = %caller.peer, "a producer does not know yet");
            return Ok(Answer::ok().into());
        }
        _ => {
            let remark = "commitOrRollback field wrong";
            return Err(refuse(response::SYSTEM_ERROR, remark));
        }
    };
    let not_found = || {
        let remark = "Find prepared transaction message failed";
        refuse(response::SYSTEM_ERROR, remark)
    };
    let (reply, answer) = match command.is_oneway() {
        true => (None, None),
        false => {
            let (reply, answer) = oneshot();
            (Some(reply), Some(answer))
        }
    };
    let decision = Decision {
        half_offset: u64::try_from(header.half_queue_offset).map_err(|_| not_found())?,
        log_offset: LogOffset(u64::try_from(header.log_offset).map_err(|_| not_found())?),
        group: (*header.producer_group).into(),
        commit,
        reply,
    };
    if coordinator.transactions.decide(decision).is_err() {
        let remark = "too many decisions wait: the producer will be asked";
        return Err(refuse(response::SYSTEM_BUSY, remark));
    }
    match answer {
        None => Ok(Answer::ok().into()),
        Some(answer) => Ok(Reply::later(async move {
            let lost = || Answer::code(response::SERVICE_NOT_AVAILABLE, "not carried out");
            answer.await.unwrap_or_else(lost)
        })),
    }
}

/// 323
pub fn resume(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = ResumeCheck::from(command)?;
    let Some((_, log_offset)) = parse_message_id(&header.message_id) else {
        let remark = format!("{} is no message id", header.message_id);
        return Err(refuse(response::SYSTEM_ERROR, remark));
    };
    let coordinator = Rc::clone(coordinator);
    Ok(Reply::later(async move {
        match resume_at(&coordinator, LogOffset(log_offset)).await {
            Ok(()) => Answer::ok(),
            Err(refusal) => refusal.into(),
        }
    }))
}

/// Appends the half message again, as one that nobody was asked about. Whoever decides it decides the transaction that it
/// always was: if a copy of that is still open, this one takes its place.
async fn resume_at(coordinator: &Coordinator, at: LogOffset) -> Result<(), Refusal> {
    let failed = |why: String| refuse(response::SYSTEM_ERROR, why);
    let store = &coordinator.shared.store;
    let record = store.record_at(at).await;
    let record = record.map_err(|error| failed(error.to_string()))?;
    let view = record
        .as_deref()
        .and_then(|record| View::parse(record).ok());
    let given_up = view.filter(|view| view.topic == TRANS_CHECK_MAX_TIME_TOPIC.as_bytes());
    let Some(view) = given_up else {
        let remark = format!(
            "there is no message at {} in {TRANS_CHECK_MAX_TIME_TOPIC}: only transactions that were given up can be resumed",
            at.0
        );
        return Err(failed(remark));
    };
    let Some(made) = half::resumed(&view) else {
        return Err(failed("the message's properties are too long".into()));
    };
    let queue = store.queue(&made.topic, made.queue_id);
    let mut appender = Appender::new(coordinator.shared.writer.clone());
    let draft = made.draft();
    let appended = appender.append_one(&queue, made.tag_hash, &draft).await;
    appended.map_err(|error| {
        failed(format!(
            "Put message back to the half topic failed: {error}"
        ))
    })?;
    tracing::info!(
        log_offset = at.0,
        "a transaction that was given up is asked about again"
    );
    Ok(())
}
