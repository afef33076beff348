//! The values of one start on their way to `Settings`: defaults, what the user gave over them, and typed access.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use engine::{FlusherKind, Retention, WindowDir};

use super::keys::{self, Effect, Key, Kind};
use super::{AddressServer, Invalid, Machine, Remark, Role};
use crate::memory;

/// Finds the address of a host. Blocks.
pub type Resolve<'a> = &'a dyn Fn(&str) -> io::Result<IpAddr>;

/// Where this broker is reached, as it was given and as an address. A name is passed on as it is: it may mean another address
/// to those who hear it, and later on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub ip: IpAddr,
}

impl Host {
    pub fn with_port(&self, port: u16) -> String {
        match self.name.parse::<IpAddr>() {
            Ok(_) => SocketAddr::new(self.ip, port).to_string(),
            Err(_) => format!("{}:{port}", self.name),
        }
    }
}

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

/// `host:port` with `;` between; none if one of them is something else.
pub fn addresses(list: &str) -> Option<Vec<String>> {
    let list = list.split(';').map(str::trim);
    let named = list.filter(|address| !address.is_empty());
    named
        .map(|address| {
            let (host, port) = address.rsplit_once(':')?;
            let port: u16 = port.parse().ok()?;
            (!host.is_empty() && port > 0).then(|| address.to_owned())
        })
        .collect()
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

    pub fn ip(&self, key: &str) -> Result<IpAddr, Invalid> {
        self.text(key)
            .parse()
            .map_err(|_| self.invalid(key, "expected an IP address"))
    }

    /// The address given, or that of the host named; else `fallback`; else the machine's.
    pub fn host(
        &self,
        key: &str,
        fallback: Option<IpAddr>,
        resolve: Resolve<'_>,
    ) -> Result<Host, Invalid> {
        let text = self.text(key);
        let ip = match (text, fallback) {
            ("", Some(ip)) => ip,
            ("", None) => self.ip(DEFAULT_ADDRESS)?,
            _ => match text.parse() {
                Ok(ip) => ip,
                Err(_) => resolve(text).map_err(|error| {
                    let expected = "expected an IP address, or the name of a host that has one";
                    self.invalid(key, &format!("{expected} ({error})"))
                })?,
            },
        };
        let name = match text {
            "" => ip.to_string(),
            _ => text.to_owned(),
        };
        Ok(Host { name, ip })
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
        addresses(self.text(key)).ok_or_else(|| {
            self.invalid(key, "expected addresses like 127.0.0.1:9876;10.0.0.2:9876")
        })
    }

    /// Where name servers are asked for, if that is wanted and `none_named`: a list in broker.conf beats it.
    pub fn address_server(&self, none_named: bool) -> Result<Option<AddressServer>, Invalid> {
        if !none_named || !self.bool("fetchNamesrvAddrByAddressServer")? {
            return Ok(None);
        }
        let domain = self.text("rmqAddressServerDomain");
        let port = match domain.contains(':') {
            true => "",
            false => ":8080",
        };
        let group = self.text("rmqAddressServerSubGroup");
        Ok(Some(AddressServer {
            url: format!("http://{domain}{port}/rocketmq/{group}"),
            period_ms: self.number("fetchNamesrvAddrInterval")?,
        }))
    }

    /// Whether this broker is to be one of several with the same data, by Raft or as a controller elects it, or a process of
    /// several brokers. Each of them started as a master of its own would take the others' place at the name servers.
    pub fn stands_alone(&self) -> Result<(), Invalid> {
        for (key, what) in [
            ("enableDLegerCommitLog", "replicate by Raft (DLedger)"),
            ("enableControllerMode", "take its role from a controller"),
        ] {
            if self.bool(key)? {
                let way_out = format!(
                    "this version does not {what}: remove it, and give each broker a brokerName of its own and \
                     brokerRole=ASYNC_MASTER"
                );
                return Err(self.invalid(key, &way_out));
            }
        }
        match self.text("brokerConfigPaths") {
            "" => Ok(()),
            _ => Err(self.invalid(
                "brokerConfigPaths",
                "this version does not run several brokers in one process: start one for each of these files, with -c",
            )),
        }
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
