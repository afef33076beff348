//! The name server's own settings. Anyone who can connect may ask, so only what can do no harm can be changed: never a path,
//! an address or a port.

use std::io;
use std::path::Path;

use protocol::Command;
use protocol::code::response;

use super::{Answer, Context, Outcome};
use crate::config::properties;
use crate::config::{Config, SettingError};

pub(super) fn get(context: &Context) -> Answer {
    let live = context.shared.live.borrow().clone();
    let now = Config {
        live,
        ..context.shared.config.clone()
    };
    Answer::with_body(now.to_properties().into_bytes())
}

/// All settings of the request, or none.
pub(super) async fn update(context: &Context, command: &Command<'_>) -> Outcome {
    let text = String::from_utf8_lossy(command.body);
    let pairs = properties::parse(&text);
    let mut live = context.shared.live.borrow().clone();
    for (key, value) in &pairs {
        live.set(key, value).map_err(|error| {
            tracing::warn!(key, value, peer = %context.peer, "setting not changed: {error}");
            let code = match error {
                SettingError::Fixed(_) => response::NO_PERMISSION,
                SettingError::Unknown(_) | SettingError::Value { .. } => response::SYSTEM_ERROR,
            };
            Answer::refusal(code, error.to_string())
        })?;
    }
    *context.shared.live.borrow_mut() = live;
    for (key, value) in &pairs {
        tracing::info!(key, value, peer = %context.peer, "setting changed");
    }
    let Some(path) = context.shared.config.config_store_path.clone() else {
        return Ok(Answer::done());
    };
    let saved = reactor::offload("save-settings", move || write_back(&path, &pairs)).await;
    saved.map_err(|error| {
        tracing::error!(%error, "saving the settings failed");
        let remark = format!("the change is in effect but could not be saved: {error}");
        Answer::refusal(response::SYSTEM_ERROR, remark)
    })?;
    Ok(Answer::done())
}

fn write_back(path: &Path, pairs: &[(String, String)]) -> io::Result<()> {
    let before = match reactor::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    if let Some(dir) = path.parent() {
        reactor::fs::create_dir_all(dir)?;
    }
    reactor::fs::replace(path, properties::replace(&before, pairs).as_bytes())
}
