//! Sizes as people write and read them.

const UNITS: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

/// Two digits that matter: `8 MiB`, `1.5 GiB`.
pub fn shown(bytes: u64) -> String {
    for (unit, size) in UNITS {
        if bytes >= size {
            let tenths = (bytes as f64 / size as f64 * 10.0).round() / 10.0;
            let digits = usize::from(tenths.fract() != 0.0 && tenths < 100.0);
            return format!("{tenths:.digits$} {unit}");
        }
    }
    format!("{bytes} bytes")
}

/// `512M`, `4g`, `1048576`.
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, shift) = match text.chars().next_back()?.to_ascii_uppercase() {
        'K' => (&text[..text.len() - 1], 10),
        'M' => (&text[..text.len() - 1], 20),
        'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(shown(0), "0 bytes");
        assert_eq!(shown(8 << 20), "8 MiB");
        assert_eq!(shown(3 << 29), "1.5 GiB");
        assert_eq!(shown(1_000_000_000_000), "931 GiB");
    }

    #[test]
    fn suffixes_are_understood_and_nonsense_is_not() {
        assert_eq!(parse("256M"), Some(256 << 20));
        assert_eq!(parse(" 4g "), Some(4 << 30));
        assert_eq!(parse("1048576"), Some(1 << 20));
        assert_eq!(parse("much"), None);
        assert_eq!(parse("ä"), None);
        assert_eq!(parse(""), None);
        assert_eq!(parse("99999999999G"), None);
    }
}
