//! A value of a header still in its wire form: borrowed bytes, plus whether they hold JSON
//! escapes. Most values never need to be copied; those that do are unescaped once, straight into
//! the place they go to.
//!
//! Escapes were checked when the header was scanned, so unescaping cannot fail.

use std::borrow::Cow;

use crate::scan::find_either;

/// Borrowed bytes of one value. Equality is by wire form: `Text::plain(b"a")` and an escaped
/// spelling of the same letter differ; use [`Text::eq_str`] to compare meanings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Text<'a> {
    /// Bytes that mean themselves.
    pub const fn plain(raw: &'a [u8]) -> Text<'a> {
        Text {
            raw,
            escaped: false,
        }
    }

    /// The inside of a JSON string whose escapes the scanner has checked.
    pub(crate) const fn scanned(raw: &'a [u8], escaped: bool) -> Text<'a> {
        Text { raw, escaped }
    }

    /// The wire form.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    pub fn has_escapes(&self) -> bool {
        self.escaped
    }

    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The meaning as bytes: borrowed unless there are escapes to undo.
    pub fn as_bytes(&self) -> Cow<'a, [u8]> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut out = Vec::with_capacity(self.raw.len());
        self.append_to(&mut out);
        Cow::Owned(out)
    }

    /// The meaning as a string. Bytes that are not UTF-8 become U+FFFD, as Java reads them.
    pub fn as_str(&self) -> Cow<'a, str> {
        match self.as_bytes() {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(match String::from_utf8(bytes) {
                Ok(string) => string,
                Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
            }),
        }
    }

    /// Appends the meaning, and says how many bytes that were.
    pub fn append_to(&self, out: &mut Vec<u8>) -> usize {
        let before = out.len();
        if !self.escaped {
            out.extend_from_slice(self.raw);
            return out.len() - before;
        }
        out.reserve(self.raw.len());
        let mut rest = self.raw;
        while !rest.is_empty() {
            let (clean, escape) = rest.split_at(find_either::<b'\\', b'\\'>(rest));
            out.extend_from_slice(clean);
            rest = unescape(escape, out);
        }
        out.len() - before
    }

    /// How many bytes [`Text::append_to`] would append.
    pub fn unescaped_len(&self) -> usize {
        if !self.escaped {
            return self.raw.len();
        }
        let mut sink = Vec::with_capacity(4);
        let mut total = 0;
        let mut rest = self.raw;
        while !rest.is_empty() {
            let (clean, escape) = rest.split_at(find_either::<b'\\', b'\\'>(rest));
            sink.clear();
            rest = unescape(escape, &mut sink);
            total += clean.len() + sink.len();
        }
        total
    }

    /// Whether the meaning is exactly `other`.
    pub fn eq_str(&self, other: &str) -> bool {
        if self.escaped {
            self.as_bytes().as_ref() == other.as_bytes()
        } else {
            self.raw == other.as_bytes()
        }
    }

    /// A decimal number as `Integer.parseInt` reads it: optional sign, digits, nothing else.
    pub fn parse_i32(&self) -> Option<i32> {
        i32::try_from(self.parse_i64()?).ok()
    }

    /// A decimal number as `Long.parseLong` reads it.
    pub fn parse_i64(&self) -> Option<i64> {
        let (negative, digits) = match self.raw {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        // 19 digits hold every i64; leading zeros beyond that are nobody's number.
        if digits.is_empty() || digits.len() > DIGITS_MAX {
            return None;
        }
        let mut magnitude: u64 = 0;
        for &digit in digits {
            let value = digit.wrapping_sub(b'0');
            if value > 9 {
                return None;
            }
            magnitude = magnitude * 10 + u64::from(value);
        }
        if negative {
            0i64.checked_sub_unsigned(magnitude)
        } else {
            i64::try_from(magnitude).ok()
        }
    }

    /// `Boolean.parseBoolean`: "true" in any case is true, everything else false.
    pub fn parse_bool(&self) -> bool {
        self.raw.eq_ignore_ascii_case(b"true")
    }
}

const DIGITS_MAX: usize = 19;

/// Undoes the escape at the start of `bytes` (if anything is left), returns what follows it. A
/// pair of surrogates is one escape here; a lone one becomes `?`, which is what Java's UTF-8 encoder makes of it.
fn unescape<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    // The separators of properties are nearly all the escapes there are.
    if let [_, b'u', b'0', b'0', b'0', digit @ (b'1' | b'2'), rest @ ..] = bytes {
        out.push(digit - b'0');
        return rest;
    }
    let Some(&kind) = bytes.get(1) else {
        return &[];
    };
    let simple = match kind {
        b'b' => 0x08,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return unescape_unicode(bytes, out),
        other => other,
    };
    out.push(simple);
    &bytes[2..]
}

fn unescape_unicode<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let Some(unit) = unicode_unit(bytes) else {
        return &[];
    };
    let rest = &bytes[UNICODE_ESCAPE_BYTES..];
    if (0xD800..0xDC00).contains(&unit)
        && let Some(low) = unicode_unit(rest)
        && (0xDC00..0xE000).contains(&low)
    {
        let scalar = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
        push_scalar(scalar, out);
        return &rest[UNICODE_ESCAPE_BYTES..];
    }
    push_scalar(unit, out);
    rest
}

const UNICODE_ESCAPE_BYTES: usize = 6;

fn unicode_unit(bytes: &[u8]) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = bytes.get(..UNICODE_ESCAPE_BYTES)? else {
        return None;
    };
    let mut unit = 0;
    for &digit in digits {
        unit = unit << 4 | char::from(digit).to_digit(16)?;
    }
    Some(unit)
}

fn push_scalar(scalar: u32, out: &mut Vec<u8>) {
    match char::from_u32(scalar) {
        Some(character) => {
            let mut buffer = [0; 4];
            out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
        }
        None => out.push(b'?'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(raw: &str) -> String {
        Text::scanned(raw.as_bytes(), true).as_str().into_owned()
    }

    #[test]
    fn escapes_and_surrogates_become_their_characters() {
        assert_eq!(meaning(r"TAGS\u0001a\u0002"), "TAGS\u{1}a\u{2}");
        assert_eq!(meaning(r#"\"\\\/\b\f\n\r\t"#), "\"\\/\u{8}\u{c}\n\r\t");
        assert_eq!(meaning(r"\ud83d\ude00!"), "😀!");
        assert_eq!(meaning(r"\u4e2d文"), "中文");
    }

    #[test]
    fn a_lone_surrogate_becomes_a_question_mark() {
        assert_eq!(meaning(r"a\ud83db"), "a?b");
        assert_eq!(meaning(r"\ude00\ud83d"), "??");
        assert_eq!(meaning(r"\ud83d\u0041"), "?A");
    }

    #[test]
    fn the_unescaped_length_is_what_gets_appended() {
        for raw in [
            "",
            "plain",
            r"a\u0001b",
            r"\ud83d\ude00",
            r"\n\n",
            r"\ud83d",
        ] {
            let text = Text::scanned(raw.as_bytes(), true);
            let mut out = Vec::new();
            assert_eq!(text.append_to(&mut out), text.unescaped_len(), "{raw}");
        }
    }

    #[test]
    fn numbers_are_read_as_java_reads_them() {
        let number = |raw: &str| Text::plain(raw.as_bytes()).parse_i64();
        assert_eq!(number("0"), Some(0));
        assert_eq!(number("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(number("9223372036854775807"), Some(i64::MAX));
        assert_eq!(number("+7"), Some(7));
        for wrong in [
            "",
            "-",
            "9223372036854775808",
            "1.0",
            " 1",
            "1e3",
            "0x1",
            "18446744073709551617",
        ] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
        assert_eq!(Text::plain(b"2147483648").parse_i32(), None);
        assert!(Text::plain(b"TRUE").parse_bool() && !Text::plain(b"1").parse_bool());
    }

    #[test]
    fn comparing_looks_through_escapes() {
        assert!(Text::scanned(br"\u0061b", true).eq_str("ab"));
        assert!(!Text::plain(br"\u0061b").eq_str("ab"));
    }
}
