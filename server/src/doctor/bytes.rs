//! Sizes as people read them.

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
}
