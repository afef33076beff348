//! One broker: how it is, its settings, whether it takes messages.

use std::collections::BTreeMap;

use protocol::Value;
use protocol::body::kv_table::KvTable;
use protocol::code::request;
use serde::Serialize;

use super::Admin;
use crate::error::{Error, Result};

/// How a broker is, under the names it uses itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Runtime(pub BTreeMap<String, String>);

impl Runtime {
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The first number of a value: rates are given over 10 s, 1 min and 10 min.
    pub fn rate(&self, name: &str) -> f64 {
        let first = self.get(name).split_whitespace().next();
        first.and_then(|text| text.parse().ok()).unwrap_or(0.0)
    }
}

/// A setting of a broker or name server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Setting {
    pub name: String,
    pub value: String,
}

impl Admin {
    pub async fn runtime(&self, address: &str) -> Result<Runtime> {
        let code = request::GET_BROKER_RUNTIME_INFO;
        let table: KvTable = self.json(address, code, &[]).await?;
        Ok(Runtime(table.table))
    }

    /// All settings of a broker, by name.
    pub async fn broker_settings(&self, address: &str) -> Result<Vec<Setting>> {
        self.settings(address, request::GET_BROKER_CONFIG).await
    }

    /// All settings of a name server, by name.
    pub async fn name_server_settings(&self, address: &str) -> Result<Vec<Setting>> {
        self.settings(address, request::GET_NAMESRV_CONFIG).await
    }

    async fn settings(&self, address: &str, code: i32) -> Result<Vec<Setting>> {
        let answer = self.demand(address, code, &[], b"").await?;
        let text = String::from_utf8_lossy(answer.command().body).into_owned();
        let mut all: Vec<Setting> = text.lines().filter_map(setting).collect();
        all.sort();
        Ok(all)
    }

    /// Changes a setting of a running broker.
    ///
    /// # Errors
    /// [`Error::Refused`] if the broker has no such setting, or it cannot change while it runs.
    pub async fn set_broker_setting(&self, address: &str, name: &str, value: &str) -> Result<()> {
        let code = request::UPDATE_BROKER_CONFIG;
        self.set(address, code, name, value).await
    }

    /// Changes a setting of a running name server.
    ///
    /// # Errors
    /// [`Error::Refused`] if the name server has no such setting, or it cannot change while it runs.
    pub async fn set_name_server_setting(
        &self,
        address: &str,
        name: &str,
        value: &str,
    ) -> Result<()> {
        let code = request::UPDATE_NAMESRV_CONFIG;
        self.set(address, code, name, value).await
    }

    async fn set(&self, address: &str, code: i32, name: &str, value: &str) -> Result<()> {
        if name.contains(['=', '\n']) || value.contains('\n') {
            return Err(Error::Illegal("a setting is one line".into()));
        }
        let body = format!("{name}={value}\n");
        self.demand(address, code, &[], body.as_bytes()).await?;
        Ok(())
    }

    /// Takes a broker out of the routes for writing, or puts it back: how many topics have changed.
    pub async fn set_broker_writable(&self, broker_name: &str, writable: bool) -> Result<i64> {
        let (code, count) = match writable {
            true => (request::ADD_WRITE_PERM_OF_BROKER, "addTopicCount"),
            false => (request::WIPE_WRITE_PERM_OF_BROKER, "wipeTopicCount"),
        };
        let fields = [("brokerName", Value::Str(broker_name))];
        let mut changed = 0;
        for address in &self.name_servers {
            let answer = self.demand(address, code, &fields, b"").await?;
            changed = answer.i64(count, address)?.max(changed);
        }
        Ok(changed)
    }
}

/// `name=value` as a properties file has it; comments and empty lines are none.
fn setting(line: &str) -> Option<Setting> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (name, value) = line.split_once('=')?;
    Some(Setting {
        name: name.trim().to_owned(),
        value: value.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_lines_of_name_and_value() {
        let one = setting(" storePath = /a=b ").expect("a setting");
        assert_eq!(
            (one.name.as_str(), one.value.as_str()),
            ("storePath", "/a=b")
        );
        assert_eq!(setting("# a=b"), None);
        assert_eq!(setting(""), None);
    }

    #[test]
    fn the_first_of_several_rates_counts() {
        let runtime = Runtime([("putTps".to_owned(), "12.5 3.0 1.0".to_owned())].into());
        assert_eq!(runtime.rate("putTps"), 12.5);
        assert_eq!(runtime.rate("getTotalTps"), 0.0);
    }
}
