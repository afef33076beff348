//! What tools set about reading old messages. A reader of old messages has turns here (`pull/cold.rs`) in place of a budget of
//! bytes, and every read is sized by itself: thresholds are kept and shown for the tools, and change nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::Command;
use protocol::code::response;
use protocol::json::{self, Dialect};
use serde::Serialize;

use crate::config::properties;
use crate::coordinator::Coordinator;
use crate::handlers::{Answer, Caller, Handled, refuse};

const GROUPS_MAX: usize = 10_000;
/// RocketMQ's defaults (`cgColdReadThreshold`, `globalColdReadThreshold`).
const OF_GROUP_BYTES: i64 = 3 << 20;
const OF_ALL_BYTES: i64 = 100 << 20;
/// `madvise` modes of the request: as the kernel does, and none.
const READ_MODES: [&str; 2] = ["0", "1"];

/// Bytes by group, as operators set them. Owned by the coordinator; gone at a restart, as in RocketMQ.
#[derive(Debug, Default)]
pub struct Thresholds(RefCell<BTreeMap<String, i64>>);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    cg_cold_read_threshold: i64,
    config_table: &'a BTreeMap<String, i64>,
    global_acc: i64,
    global_cold_read_threshold: i64,
    runtime_table: BTreeMap<String, i64>,
}

/// 2001: `group=bytes` in lines.
pub fn set(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let text = String::from_utf8_lossy(command.body);
    let invalid = |remark: String| refuse(response::INVALID_PARAMETER, remark);
    let mut wanted = Vec::new();
    for property in properties::parse(&text) {
        let (group, bytes) = (property.key, property.value);
        let bytes: i64 = bytes
            .parse()
            .map_err(|_| invalid(format!("{group}={bytes}: not a number of bytes")))?;
        wanted.push((group, bytes));
    }
    let mut thresholds = coordinator.cold_thresholds.0.borrow_mut();
    if thresholds.len() + wanted.len() > GROUPS_MAX {
        return Err(invalid(format!("no more than {GROUPS_MAX} groups")));
    }
    tracing::info!(?wanted, peer = %caller.peer, "thresholds of cold reading set");
    thresholds.extend(wanted);
    Ok(Answer::ok().into())
}

/// 2002: the group is the body.
pub fn remove(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let group = String::from_utf8_lossy(command.body);
    let removed = coordinator
        .cold_thresholds
        .0
        .borrow_mut()
        .remove(group.trim());
    tracing::info!(%group, was = removed, peer = %caller.peer, "threshold of cold reading removed");
    Ok(Answer::ok().into())
}

/// 2003
pub fn info(coordinator: &Rc<Coordinator>) -> Handled {
    let thresholds = coordinator.cold_thresholds.0.borrow();
    let info = Info {
        cg_cold_read_threshold: OF_GROUP_BYTES,
        config_table: &thresholds,
        global_acc: 0,
        global_cold_read_threshold: OF_ALL_BYTES,
        runtime_table: BTreeMap::new(),
    };
    Ok(Answer::with_body(json::to_vec(&info, Dialect::Fastjson1)).into())
}

/// 2004
pub fn read_mode(command: &Command<'_>) -> Handled {
    let mode = command.fields.string("READ_AHEAD_MODE");
    let Some(mode) = mode.filter(|mode| READ_MODES.contains(&&**mode)) else {
        return Err(refuse(
            response::INVALID_PARAMETER,
            "set commitlog readahead mode param value error",
        ));
    };
    let remark = format!("set commitlog readahead mode success, mode: {mode}");
    Ok(Answer::code(response::SUCCESS, remark).into())
}
