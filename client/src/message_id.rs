//! Unique message ids as RocketMQ's clients make them: 16 bytes in hexadecimal that say where, by which process and
//! when a message was made, and that the broker keeps as the message's unique key.
//!
//! ```text
//! | IPv4 address 4 | process id 2 | client 4 | milliseconds since the month began 4 | counter 2 |
//! ```

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::lock::Mutex;
use crate::time::{first_day, year_and_month};

pub(crate) struct MessageIds {
    prefix: [u8; 10],
    counter: AtomicU32,
    month: Mutex<Month>,
}

/// When the running month began and the next one begins, in UTC.
#[derive(Clone, Copy, Default)]
struct Month {
    began_ms: i64,
    ends_ms: i64,
}

impl MessageIds {
    pub fn new(ip: Ipv4Addr) -> MessageIds {
        let mut prefix = [0; 10];
        prefix[..4].copy_from_slice(&ip.octets());
        prefix[4..6].copy_from_slice(&(std::process::id() as u16).to_be_bytes());
        // Two clients in one process, or a process that has the number of one that is gone, must differ.
        let nanos = now().as_nanos() as u32;
        prefix[6..].copy_from_slice(&nanos.to_be_bytes());
        MessageIds {
            prefix,
            counter: AtomicU32::new(0),
            month: Mutex::default(),
        }
    }

    pub fn next(&self) -> String {
        let since_month_began = self.since_month_began(now_ms());
        let counter = self.counter.fetch_add(1, Ordering::Relaxed) as u16;
        let mut bytes = [0; 16];
        bytes[..10].copy_from_slice(&self.prefix);
        bytes[10..14].copy_from_slice(&since_month_began.to_be_bytes());
        bytes[14..].copy_from_slice(&counter.to_be_bytes());
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits
            .map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)]))
            .collect()
    }

    fn since_month_began(&self, now_ms: i64) -> u32 {
        let mut month = self.month.lock();
        if now_ms >= month.ends_ms {
            *month = Month::of(now_ms);
        }
        // A clock that was set back must not wrap around.
        (now_ms - month.began_ms).max(0) as u32
    }
}

const DAY_MS: i64 = 86_400_000;

impl Month {
    fn of(now_ms: i64) -> Month {
        let today = now_ms.div_euclid(DAY_MS);
        let (year, month) = year_and_month(today);
        let next = if month == 12 {
            (year + 1, 1)
        } else {
            (year, month + 1)
        };
        Month {
            began_ms: first_day(year, month) * DAY_MS,
            ends_ms: first_day(next.0, next.1) * DAY_MS,
        }
    }
}

fn now() -> std::time::Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

pub(crate) fn now_ms() -> i64 {
    now().as_millis() as i64
}

/// The address this machine would use to reach `remote`; no packet is sent.
pub(crate) fn local_ip(remote: &str) -> Ipv4Addr {
    let found = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect(remote)?;
        socket.local_addr()
    });
    match found.map(|address| address.ip()) {
        Ok(IpAddr::V4(ip)) => ip,
        _ => Ipv4Addr::LOCALHOST,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_32_digits_begin_with_the_address_and_differ() {
        let ids = MessageIds::new(Ipv4Addr::new(10, 1, 2, 255));
        let made: HashSet<String> = (0..10_000).map(|_| ids.next()).collect();
        assert_eq!(made.len(), 10_000);
        assert!(
            made.iter()
                .all(|id| id.len() == 32 && id.starts_with("0A0102FF"))
        );
    }

    #[test]
    fn months_begin_where_the_calendar_says() {
        for (now_ms, began_ms, ends_ms) in [
            (0, 0, 31 * DAY_MS),
            // 2024-02-29T12:00:00Z, a leap day.
            (1_709_208_000_000, 1_706_745_600_000, 1_709_251_200_000),
            // 2025-12-31T23:59:59.999Z
            (1_767_225_599_999, 1_764_547_200_000, 1_767_225_600_000),
        ] {
            let month = Month::of(now_ms);
            assert_eq!(
                (month.began_ms, month.ends_ms),
                (began_ms, ends_ms),
                "{now_ms}"
            );
        }
    }
}
