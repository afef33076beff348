//! `messageDelayLevel`: how long each delay level waits.

/// `1s 5s 10s ...` in milliseconds; None if a part is no duration.
pub fn parse(text: &str) -> Option<Vec<u64>> {
    let levels: Option<Vec<u64>> = text.split_whitespace().map(duration_ms).collect();
    levels.filter(|levels| !levels.is_empty())
}

fn duration_ms(text: &str) -> Option<u64> {
    let unit_ms = match text.chars().last()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return None,
    };
    let number: u64 = text[..text.len() - 1].parse().ok()?;
    number.checked_mul(unit_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::DELAY_LEVELS;

    #[test]
    fn the_eighteen_levels_run_from_a_second_to_two_hours() {
        let levels = parse(DELAY_LEVELS).expect("the default is valid");
        assert_eq!(levels.len(), 18);
        assert_eq!(
            (levels[0], levels[3], levels[17]),
            (1_000, 30_000, 7_200_000)
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "5", "5x", "s", "1s -2s", "99999999999999999999d"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
