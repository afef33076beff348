//! The values of one start on their way to `Settings`: defaults, what the user gave over them, and typed access.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::keys::{self, Effect, Key, Kind};
use super::{Invalid, Machine, Remark, Role};

/// Not a setting: the machine's address travels with the values until `brokerIP1` is known. A specific bindAddress beats it.
pub const DEFAULT_ADDRESS: &str = "default address";

pub fn defaults(machine: &Machine, standalone: bool) -> BTreeMap<&'static str, String> {
    let mut values: BTreeMap<&'static str, String> = keys::KEYS
        .iter()
        .map(|key| (key.name, key.default.to_owned()))
        .collect();
    let address = if standalone {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        machine.address
    };
    let store = if standalone {
        PathBuf::from("data")
    } else {
        machine.home.join("store")
    };
    values.insert("brokerName", broker_name(&machine.host_name));
    values.insert("brokerIP1", String::new());
    values.insert("brokerIP2", String::new());
    values.insert("storePathRootDir", store.to_string_lossy().into_owned());
    values.insert(DEFAULT_ADDRESS, address.to_string());
    values
}

/// The host's name as far as it can be the name of a topic too.
fn broker_name(host_name: &str) -> String {
    let name: String = host_name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' || c == '-' {
                c
            } else {
                '-'
            }
        })
        .collect();
    if name.is_empty() {
        "DEFAULT_BROKER".to_owned()
    } else {
        name
    }
}

pub fn log_dirs(paths: &str, root: &Path) -> Vec<PathBuf> {
    let dirs: Vec<PathBuf> = paths
        .split(',')
        .map(str::trim)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .collect();
    if dirs.is_empty() {
        vec![root.join("commitlog")]
    } else {
        dirs
    }
}

pub fn canonical(name: &str) -> &str {
    keys::ALIASES
        .iter()
        .find(|(alias, _)| *alias == name)
        .map_or(name, |(_, canonical)| canonical)
}

/// Checks one given value and keeps it; says what will not happen because of it.
pub fn take(
    values: &mut BTreeMap<&'static str, String>,
    name: &str,
    value: &str,
    remarks: &mut Vec<Remark>,
) -> Result<(), Invalid> {
    let value = value.trim();
    let Some(key) = keys::find(canonical(name)) else {
        let hint = keys::nearest(name)
            .map(|near| format!(" (did you mean {near}?)"))
            .unwrap_or_default();
        remarks.push(Remark::Warning(format!(
            "unknown setting {name}={value} has no effect{hint}"
        )));
        return Ok(());
    };
    if key.name != name {
        remarks.push(Remark::Detail(format!("{name} is taken as {}", key.name)));
    }
    check(key, value)?;
    match key.effect {
        Effect::Absent if value != key.default => remarks.push(Remark::Warning(format!(
            "{name}={value} asks for something that this version does not do; it has no effect"
        ))),
        Effect::Tuning => remarks.push(Remark::Detail(format!(
            "{name}={value} is accepted without effect: what it tunes is built differently here"
        ))),
        _ => {}
    }
    values.insert(key.name, value.to_owned());
    Ok(())
}

fn check(key: &Key, value: &str) -> Result<(), Invalid> {
    let expected = match key.kind {
        Kind::Text => return Ok(()),
        Kind::Bool if matches!(value, "true" | "false") => return Ok(()),
        Kind::Bool => "expected true or false".to_owned(),
        Kind::Int(min, max) if value.parse().is_ok_and(|n: i64| n >= min && n <= max) => {
            return Ok(());
        }
        Kind::Int(min, max) => format!("expected a whole number from {min} to {max}"),
        Kind::Choice(words) if words.contains(&value) => return Ok(()),
        Kind::Choice(words) => format!("expected one of {}", words.join(", ")),
        Kind::Ip if value.parse::<IpAddr>().is_ok() => return Ok(()),
        Kind::Ip => "expected an IP address".to_owned(),
    };
    Err(Invalid {
        key: key.name.to_owned(),
        value: value.to_owned(),
        expected,
    })
}

/// Typed access to checked values; an error names the key.
pub struct Values<'a>(pub &'a BTreeMap<&'static str, String>);

impl Values<'_> {
    pub fn text(&self, key: &str) -> &str {
        self.0
            .get(key)
            .map(|value| value.trim())
            .unwrap_or_default()
    }

    pub fn invalid(&self, key: &str, expected: &str) -> Invalid {
        Invalid {
            key: key.to_owned(),
            value: self.text(key).to_owned(),
            expected: expected.to_owned(),
        }
    }

    pub fn bool(&self, key: &str) -> Result<bool, Invalid> {
        self.text(key)
            .parse()
            .map_err(|_| self.invalid(key, "expected true or false"))
    }

    pub fn int(&self, key: &str) -> Result<i64, Invalid> {
        self.text(key)
            .parse()
            .map_err(|_| self.invalid(key, "expected a whole number"))
    }

    pub fn number<N: TryFrom<i64>>(&self, key: &str) -> Result<N, Invalid> {
        let value = self.int(key)?;
        self.narrow(key, value)
    }

    pub fn narrow<N: TryFrom<i64>>(&self, key: &str, value: i64) -> Result<N, Invalid> {
        N::try_from(value).map_err(|_| self.invalid(key, "the number is out of range"))
    }

    pub fn port(&self, key: &str) -> Result<u16, Invalid> {
        self.number(key)
    }

    /// The address given; else `fallback`; else the machine's.
    pub fn ip(&self, key: &str, fallback: Option<IpAddr>) -> Result<IpAddr, Invalid> {
        let text = match self.text(key) {
            "" => match fallback {
                Some(ip) => return Ok(ip),
                None => self.text(DEFAULT_ADDRESS),
            },
            text => text,
        };
        text.parse()
            .map_err(|_| self.invalid(key, "expected an IP address"))
    }

    /// A word that is also the name of a topic made at the start.
    pub fn name(&self, key: &str) -> Result<String, Invalid> {
        let name = self.text(key);
        let fine = !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "%|_-".contains(c));
        if fine {
            Ok(name.to_owned())
        } else {
            Err(self.invalid(key, "expected letters, digits and any of %|_-"))
        }
    }

    pub fn addresses(&self, key: &str) -> Result<Vec<String>, Invalid> {
        let list = self
            .text(key)
            .split(';')
            .map(str::trim)
            .filter(|address| !address.is_empty());
        list.map(|address| {
            let port = address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            match port {
                Some(Ok(port)) if port > 0 => Ok(address.to_owned()),
                _ => Err(self.invalid(key, "expected addresses like 127.0.0.1:9876;10.0.0.2:9876")),
            }
        })
        .collect()
    }

    pub fn role(&self) -> Result<Role, Invalid> {
        match self.text("brokerRole") {
            "ASYNC_MASTER" => Ok(Role::AsyncMaster),
            "SYNC_MASTER" => Ok(Role::SyncMaster),
            _ => Err(self.invalid(
                "brokerRole",
                "this version does not replicate: start it as ASYNC_MASTER",
            )),
        }
    }

    /// A weaker guarantee than the one asked for is never given silently.
    pub fn refuse_what_would_break_a_promise(&self) -> Result<(), Invalid> {
        if self.text("flusher") != "mmap" {
            return Err(self.invalid("flusher", "this version has the mmap flusher only"));
        }
        Ok(())
    }
}
