//! Numbers in properties, read as Java reads them: what it takes for a number is one here, and nothing else is.
//! Two things are left out that nobody was seen to write: digits of other scripts, and fractions in hexadecimal.

/// So many digits always fit an `i64`.
const DIGITS_FIT: usize = 18;

/// As `Integer.valueOf` and `Long.valueOf` read.
#[inline]
pub fn whole<T: TryFrom<i64>>(text: &[u8]) -> Option<T> {
    T::try_from(long(text)?).ok()
}

#[inline]
fn long(text: &[u8]) -> Option<i64> {
    let (digits, is_negative) = match text {
        [b'-', digits @ ..] => (digits, true),
        [b'+', digits @ ..] | digits => (digits, false),
    };
    if digits.is_empty() || digits.len() > DIGITS_FIT {
        return std::str::from_utf8(text).ok()?.parse().ok();
    }
    let mut number = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + i64::from(digit);
    }
    Some(if is_negative { -number } else { number })
}

/// As `Double.valueOf` reads: blanks around it, a letter behind it that says the type, and words for what is no number.
pub fn fraction(text: &[u8]) -> Option<f64> {
    let is_blank = |byte: &u8| *byte <= b' ';
    let start = text.iter().position(|byte| !is_blank(byte))?;
    let end = text.iter().rposition(|byte| !is_blank(byte))? + 1;
    let text = std::str::from_utf8(&text[start..end]).ok()?;
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned {
        "NaN" => return Some(f64::NAN),
        "Infinity" if text.starts_with('-') => return Some(f64::NEG_INFINITY),
        "Infinity" => return Some(f64::INFINITY),
        _ => {}
    }
    let number = text.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(text);
    // Words are done with; Rust knows more of them than Java.
    let is_digits = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    if !number.bytes().all(is_digits) {
        return None;
    }
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_numbers_have_no_blanks_and_may_have_a_sign() {
        assert_eq!(whole::<i32>(b"+5"), Some(5));
        assert_eq!(whole::<i32>(b"-0"), Some(0));
        assert_eq!(whole::<i64>(b"3000000000"), Some(3_000_000_000));
        for no in [
            "3000000000",
            " 5",
            "5 ",
            "",
            "-",
            "5.0",
            "5l",
            "0x5",
            "--5",
            "+-5",
            "٣",
        ] {
            assert_eq!(whole::<i32>(no.as_bytes()), None, "{no}");
        }
        for end in [i64::MIN, i64::MAX] {
            assert_eq!(whole(end.to_string().as_bytes()), Some(end));
        }
        assert_eq!(whole::<i64>(b"9223372036854775808"), None);
        assert_eq!(whole::<i64>(b"+0000000000000000000007"), Some(7));
    }

    proptest! {
        #[test]
        fn whole_numbers_are_what_rust_takes_for_some(text in "[-+]?[0-9]{0,20}|[-+0-9a ]{0,4}") {
            prop_assert_eq!(whole::<i32>(text.as_bytes()), text.parse().ok());
            prop_assert_eq!(whole::<i64>(text.as_bytes()), text.parse().ok());
        }
    }

    #[test]
    fn fractions_are_read_as_java_reads_them() {
        let yes = [
            (" 1.5\t", 1.5),
            ("1.5f", 1.5),
            ("2D", 2.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e3d", 1000.0),
            ("-Infinity", f64::NEG_INFINITY),
            ("1e999", f64::INFINITY),
        ];
        for (text, number) in yes {
            assert_eq!(fraction(text.as_bytes()), Some(number), "{text}");
        }
        assert!(fraction(b"-NaN").is_some_and(f64::is_nan));
        for no in [
            "", " ", "inf", "nan", "infinity", "1e", "f", "1.5ff", "1,5", "NaNf", ".",
        ] {
            assert_eq!(fraction(no.as_bytes()), None, "{no}");
        }
    }
}
