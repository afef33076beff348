//! Times as an operator says them.

use std::time::{SystemTime, UNIX_EPOCH};

use orbitmq_client::admin::Target;
use orbitmq_client::time;

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as i64
}

/// `now`, `90s`, `10m`, `2h`, `1d` (ago), or a time in UTC. In milliseconds since 1970.
pub fn parse(text: &str) -> Result<i64, String> {
    let text = text.trim();
    if text == "now" {
        return Ok(now_ms());
    }
    if let Some(ago_ms) = span_ms(text.trim_start_matches('-')) {
        return Ok(now_ms() - ago_ms);
    }
    time::parse_ms(text).ok_or_else(|| {
        format!("{text:?} is no time: now, 10m, 2h, 1d, 2024-02-29 12:00:00 (UTC) or milliseconds since 1970")
    })
}

fn span_ms(text: &str) -> Option<i64> {
    let unit_ms = match text.chars().last()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return None,
    };
    let count: i64 = text[..text.len() - 1].parse().ok()?;
    count.checked_mul(unit_ms)
}

/// Where a group is to go on.
pub fn target(text: &str) -> Result<Target, String> {
    match text.trim() {
        "earliest" | "first" | "min" => Ok(Target::Earliest),
        // What is stored while this is being said is not skipped by time.
        "latest" | "last" | "max" | "now" | "-1" => Ok(Target::Latest),
        other => match other.strip_prefix("offset:") {
            Some(number) => {
                let offset = number.trim().parse();
                offset
                    .map(Target::Offset)
                    .map_err(|_| format!("{number:?} is no offset"))
            }
            None => parse(other).map(Target::Time),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_ago_and_dates_are_themselves() {
        assert_eq!(parse("2024-02-29 12:00:00"), Ok(1_709_208_000_000));
        let ago = now_ms() - parse("10m").expect("a span");
        assert!((600_000..601_000).contains(&ago));
        assert_eq!(span_ms("2h"), Some(7_200_000));
        assert!(parse("soon").is_err() && parse("").is_err());
    }

    #[test]
    fn targets_are_words_offsets_or_times() {
        assert_eq!(target("earliest"), Ok(Target::Earliest));
        assert_eq!(target("now"), Ok(Target::Latest));
        assert_eq!(target("offset:42"), Ok(Target::Offset(42)));
        assert_eq!(target("1709208000000"), Ok(Target::Time(1_709_208_000_000)));
        assert!(target("offset:x").is_err());
    }
}
