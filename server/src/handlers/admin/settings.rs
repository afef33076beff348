//! The running broker's settings: shown and changed.

use std::rc::Rc;
use std::sync::Arc;

use protocol::Command;
use protocol::body::Body;
use protocol::code::response;
use protocol::json::Dialect;
use reactor::fs;

use crate::config::{ChangeRefused, Remark, properties, write_back};
use crate::coordinator::Coordinator;
use crate::handlers::{Answer, Caller, Handled, Reply, refuse};

/// 26
pub fn get(coordinator: &Rc<Coordinator>) -> Handled {
    let settings = coordinator.settings();
    let version = coordinator.tables().topics.version();
    let version = String::from_utf8_lossy(&version.to_json(Dialect::Strict)).into_owned();
    let answer = Answer::with_body(settings.to_properties().into_bytes());
    Ok(answer.field("version", version).into())
}

/// 25: properties in the body. Everything is taken or nothing; what is taken is written back into the file.
pub fn update(coordinator: &Rc<Coordinator>, caller: Caller, command: &Command<'_>) -> Handled {
    let text = String::from_utf8_lossy(command.body);
    let changes: Vec<(String, String)> = properties::parse(&text)
        .into_iter()
        .map(|property| (property.key, property.value))
        .collect();
    let before = coordinator.settings();
    let (settings, remarks) = before.changed(&changes).map_err(|refused| {
        let code = match refused {
            ChangeRefused::BlackListed(_) => response::NO_PERMISSION,
            ChangeRefused::NeedsRestart(_)
            | ChangeRefused::NotHere(_)
            | ChangeRefused::Unknown { .. }
            | ChangeRefused::Invalid(_) => response::INVALID_PARAMETER,
        };
        refuse(code, refused.to_string())
    })?;
    for (key, value) in &changes {
        tracing::info!(key, value, peer = %caller.peer, "setting changed by request");
    }
    for remark in remarks {
        match remark {
            Remark::Warning(text) => tracing::warn!("{text}"),
            Remark::Detail(text) => tracing::debug!("{text}"),
        }
    }
    let rights_changed = settings.broker_permission != before.broker_permission;
    let store = &coordinator.shared.store;
    store.set_retention(settings.retention.clone());
    coordinator.shared.settings.publish(Arc::new(settings));
    if rights_changed {
        coordinator.register_again();
    }
    let Some(file) = coordinator.config_file() else {
        return Ok(Answer::ok().into());
    };
    Ok(Reply::later(async move {
        let written = reactor::offload("write broker.conf", move || {
            let text = String::from_utf8_lossy(&fs::read(&file)?).into_owned();
            fs::replace(&file, write_back::changed(&text, &changes).as_bytes())
        })
        .await;
        match written {
            Ok(()) => Answer::ok(),
            Err(error) => Answer::code(
                response::SYSTEM_ERROR,
                format!("in effect until the next start: broker.conf cannot be written: {error}"),
            ),
        }
    }))
}
