//! Times as people write and read them, in UTC: `yyyyMMddHHmmss`, `yyyy-MM-dd HH:mm:ss`, milliseconds since 1970.

const DAY_MS: i64 = 86_400_000;

/// Days from 1970-01-01 to the first of a month, in the Gregorian calendar.
pub(crate) fn first_day(year: i64, month: i64) -> i64 {
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

pub(crate) fn year_and_month(day: i64) -> (i64, i64) {
    // Close enough to begin with; the loops take at most a few steps.
    let mut year = 1970 + day.div_euclid(366);
    while first_day(year, 1) > day {
        year -= 1;
    }
    while first_day(year + 1, 1) <= day {
        year += 1;
    }
    let month = (1..=12).rev().find(|&month| first_day(year, month) <= day);
    (year, month.expect("January has begun"))
}

/// A time that somebody wrote, in milliseconds since 1970. Digits alone are `yyyyMMddHHmmss` where there are 14 of them,
/// else milliseconds; with `-`, `:`, `#` or `T` between them they are a date with or without a time.
pub fn parse_ms(text: &str) -> Option<i64> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() != 14 {
        return text.parse().ok();
    }
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let between = |letter: char| letter.is_ascii_digit() || " -:#T.Z".contains(letter);
    if !text.chars().all(between) || !matches!(digits.len(), 8 | 12 | 14 | 17) {
        return None;
    }
    let part = |from: usize, to: usize| match digits.get(from..to) {
        Some(part) => part.parse::<i64>().ok(),
        None => Some(0),
    };
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    let days_max = match month {
        1..=11 => first_day(year, month + 1) - first_day(year, month),
        12 => 31,
        _ => return None,
    };
    if !(1..=days_max).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = first_day(year, month) + day - 1;
    let seconds = (hour * 60 + minute) * 60 + second;
    Some(days * DAY_MS + seconds * 1_000 + part(14, 17)?)
}

/// `yyyy-MM-dd HH:mm:ss.SSS` in UTC; `-` for no time.
pub fn show_ms(time_ms: i64) -> String {
    if time_ms <= 0 {
        return "-".to_owned();
    }
    let day = time_ms.div_euclid(DAY_MS);
    let (year, month) = year_and_month(day);
    let day_of_month = day - first_day(year, month) + 1;
    let of_day = time_ms.rem_euclid(DAY_MS);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1_000 % 60, of_day % 1_000);
    format!("{year:04}-{month:02}-{day_of_month:02} {hour:02}:{minute:02}:{second:02}.{milli:03}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_in_every_form_people_write() {
        for text in [
            "20240229120000",
            "2024-02-29 12:00:00",
            "2024-02-29T12:00",
            "2024-02-29#12:00:00:000",
            "1709208000000",
        ] {
            assert_eq!(parse_ms(text), Some(1_709_208_000_000), "{text}");
        }
        for text in ["", "now", "2023-02-29", "2024-13-01", "2024-01-01 24:00:00"] {
            assert_eq!(parse_ms(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_time_that_is_shown_is_read_as_the_same(time_ms in 1_000_000_000_000..4_000_000_000_000i64) {
            prop_assert_eq!(parse_ms(&show_ms(time_ms)), Some(time_ms));
        }
    }
}
