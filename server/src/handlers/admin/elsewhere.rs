//! Questions about parts that this broker does not have, or has in another form: answered as a RocketMQ broker without them
//! answers, so that tools say something sensible.

use std::rc::Rc;

use protocol::Command;
use protocol::body::Body;
use protocol::body::figures::ReplicationState;
use protocol::code::response;
use protocol::json::Dialect;

use crate::coordinator::Coordinator;
use crate::handlers::{Answer, Handled, refuse};

/// 907: a master without slaves.
pub fn replication(coordinator: &Rc<Coordinator>) -> Handled {
    let end = coordinator.shared.store.written().0;
    let state = ReplicationState {
        master: true,
        master_commit_log_max_offset: i64::try_from(end).unwrap_or(i64::MAX),
        ..ReplicationState::default()
    };
    Ok(Answer::with_body(state.to_json(Dialect::Fastjson1)).into())
}

/// 908: for slaves; a master has nothing to reset.
pub fn reset_flush_offset() -> Handled {
    Ok(Answer::ok().into())
}

/// 1007
pub fn epochs() -> Handled {
    Err(refuse(
        response::SYSTEM_ERROR,
        "epochs exist under a controller only, and this broker has none",
    ))
}

/// 354
pub fn rocksdb_queues() -> Handled {
    let body = br#"{"checkResult":"no queue of this broker is kept in RocksDB","checkStatus":0}"#;
    Ok(Answer::with_body(body.to_vec()).into())
}

/// 355
pub fn rocksdb_config() -> Handled {
    let remark = "nothing to export: the tables of this broker are JSON files already";
    Ok(Answer::code(response::SUCCESS, remark).into())
}

/// 5001: `F` keeps timers in files, `R` in RocksDB.
pub fn timer_engine(command: &Command<'_>) -> Handled {
    match command.fields.string("E_T").as_deref() {
        Some("F") => Ok(Answer::ok().into()),
        engine => Err(refuse(
            response::INVALID_PARAMETER,
            format!(
                "this broker keeps its timers in the log: there is no engine {}",
                engine.unwrap_or("without a name")
            ),
        )),
    }
}

/// 3001 to 3010
pub fn access_lists() -> Handled {
    Err(refuse(
        response::SYSTEM_ERROR,
        "this broker has no users and no access lists: authenticationEnabled is off",
    ))
}
