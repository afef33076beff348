//! The values of one start on their way to `Settings`: defaults, what the user gave over them, and typed access.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use engine::{FlusherKind, Retention, WindowDir};

use super::keys::{self, Effect, Key, Kind};
use super::{Invalid, Machine, Remark, Role};
use crate::memory;

/// Not a setting: the machine's address travels with the values until `brokerIP1` is known. A specific bindAddress beats it.
pub const DEFAULT_ADDRESS: &str = "default address";

pub fn defaults(machine: &Machine, standalone: bool) -> BTreeMap<&'static str, String> {
    let mut values: BTreeMap<&'static str, String> = keys::all()
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
        Kind::Percent if percent(value).is_some() => return Ok(()),
        Kind::Percent => "expected a share of the disk like 75, or 0.75".to_owned(),
        Kind::Hours if hours(value).is_some() => return Ok(()),
        Kind::Hours => "expected hours of the day like 04, or 04;16".to_owned(),
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

/// Whole percent, or a share below one with a point in it.
fn percent(value: &str) -> Option<u8> {
    if value.contains('.') {
        let share: f64 = value.parse().ok()?;
        return (0.0..=1.0)
            .contains(&share)
            .then(|| (share * 100.0).round() as u8);
    }
    value.parse().ok().filter(|&percent| percent <= 100)
}

/// One bit for each hour named.
fn hours(value: &str) -> Option<u32> {
    let named = value.split(';').map(str::trim);
    // What stands behind a last separator is nothing, as in RocketMQ.
    let mut named = named.filter(|hour| !hour.is_empty()).peekable();
    named.peek()?;
    named.try_fold(0, |hours, hour| {
        let hour: u32 = hour.parse().ok()?;
        (hour < 24).then_some(hours | 1 << hour)
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

    pub fn percent(&self, key: &str) -> Result<u8, Invalid> {
        percent(self.text(key)).ok_or_else(|| self.invalid(key, "expected a percentage"))
    }

    pub fn hours(&self, key: &str) -> Result<u32, Invalid> {
        hours(self.text(key)).ok_or_else(|| self.invalid(key, "expected hours of the day"))
    }

    pub fn retention(&self) -> Result<Retention, Invalid> {
        let hours: i64 = self.number("fileReservedTime")?;
        Ok(Retention {
            keep_ms: hours * 3_600_000,
            delete_hours: self.hours("deleteWhen")?,
            hour_at: reactor::local_hour,
            check_interval_ms: self.number("cleanResourceInterval")?,
            expire_above_percent: self.percent("diskMaxUsedSpaceRatio")?,
            force_above_percent: self.percent("diskSpaceCleanForciblyRatio")?,
            refuse_above_percent: self.percent("diskSpaceWarningLevelRatio")?,
            may_force: self.bool("cleanFileForciblyEnable")?,
            segments_per_round_max: self.number("deleteFileBatchMax")?,
            between_segments_ms: self.number("deleteCommitLogFilesInterval")?,
            unlink_after_ms: self.number("destroyMapedFileIntervalForcibly")?,
            delete_bytes_per_second: self.number("deleteBytesPerSecond")?,
        })
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

    pub fn flusher(&self) -> Option<FlusherKind> {
        match self.text("flusher") {
            "direct" => Some(FlusherKind::Direct),
            "mmap" => Some(FlusherKind::Mmap),
            _ => None,
        }
    }

    pub fn window_dir(&self) -> WindowDir {
        match self.text("windowDir") {
            "" => WindowDir::Auto,
            "none" => WindowDir::None,
            dir => WindowDir::At(PathBuf::from(dir)),
        }
    }

    pub fn memory_bytes(&self) -> Result<u64, Invalid> {
        let text = self.text("memory");
        if text.is_empty() {
            return Ok(memory::default_bytes());
        }
        match memory::parse(text) {
            Some(bytes) if bytes >= memory::MEMORY_BYTES_MIN => Ok(bytes),
            Some(_) => Err(self.invalid(
                "memory",
                "at least 256M: with less the broker's window, indexes and connections have no room",
            )),
            None => Err(self.invalid("memory", "a number of bytes, like 512M or 4G")),
        }
    }
}
