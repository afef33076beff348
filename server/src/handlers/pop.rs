//! POP, asked for: 200050 to 200055, 200151.

pub mod ack;
pub mod assignment;
mod peek;

use std::rc::Rc;

use protocol::Command;
use protocol::header::pop::PollingInfo;

pub use peek::handle as peek;

use super::{Answer, Caller, Handled, Reply};
use crate::coordinator::Coordinator;
use crate::pop::{serve, wanted};

/// 200050
pub fn pop(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let wanted = wanted::pop(coordinator, caller, command)?;
    // Messages that nobody waits for stay where they are.
    if !command.is_oneway() {
        serve::request(coordinator, wanted);
    }
    Ok(Reply::Elsewhere)
}

/// 200054
pub fn notify(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let wanted = wanted::notification(coordinator, caller, command)?;
    if !command.is_oneway() {
        serve::request(coordinator, wanted);
    }
    Ok(Reply::Elsewhere)
}

/// 200055
pub fn polling_info(
    coordinator: &Rc<Coordinator>,
    caller: Caller,
    command: &Command<'_>,
) -> Handled {
    let header = PollingInfo::from(command)?;
    let (group, topic) = (&header.consumer_group, &header.topic);
    wanted::known(coordinator, caller.peer, group, topic, header.queue_id)?;
    let queue_id = u32::try_from(header.queue_id).ok();
    let parked = coordinator.pop.parked.len(group, topic, queue_id);
    Ok(Answer::ok().field("pollingNum", parked).into())
}

/// 200056: what POP knows is in the log already.
pub fn export() -> Handled {
    Ok(Answer::ok().into())
}
