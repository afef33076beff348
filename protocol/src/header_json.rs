//! The JSON form of a header: one pass over the bytes, nothing built but the list of fields.
//!
//! ```text
//! {"code":310,"extFields":{"a":"group",..},"flag":0,"language":"JAVA","opaque":7,
//!  "serializeTypeCurrentRPC":"JSON","version":479}
//! ```
//!
//! Clients in other languages order the keys differently, add blanks, write numbers or `null`
//! as values, and add keys of their own; all of that is read. Nesting is bounded.

use crate::command::{Command, DecodeError, Language};
use crate::fields::Added;
use crate::text::Text;

/// How deep an unknown value may nest before the header counts as broken.
const DEPTH_MAX: usize = 32;

/// Reads `header` into `command`.
pub(crate) fn read<'a>(header: &'a [u8], command: &mut Command<'a>) -> Result<(), DecodeError> {
    let mut scan = Scan {
        bytes: header,
        at: 0,
    };
    let mut seen = 0u8;
    scan.members(|scan, name| top_level(scan, &header[name.at..name.end], command, &mut seen))?;
    scan.blanks();
    if scan.at != header.len() {
        return Err(scan.broken("bytes behind the object"));
    }
    Ok(())
}

/// One member of the outer object. A key that comes twice is refused: two readers could disagree
/// about it.
fn top_level<'a>(
    scan: &mut Scan<'a>,
    name: &[u8],
    command: &mut Command<'a>,
    seen: &mut u8,
) -> Result<(), DecodeError> {
    let bit: u8 = match name {
        b"code" => 1,
        b"extFields" => 1 << 1,
        b"flag" => 1 << 2,
        b"language" => 1 << 3,
        b"opaque" => 1 << 4,
        b"version" => 1 << 5,
        b"remark" => 1 << 6,
        _ => return scan.skip(),
    };
    if *seen & bit != 0 {
        return Err(scan.broken("a key comes twice"));
    }
    *seen |= bit;
    match name {
        b"code" => command.code = scan.i32()?,
        b"flag" => command.flag = scan.i32()?,
        b"opaque" => command.opaque = scan.i32()?,
        b"version" => command.version = scan.i32()?,
        b"language" => command.language = scan.value()?.map_or(Language::OTHER, language),
        b"remark" => command.remark = scan.value()?,
        _ => return ext_fields(scan, command),
    }
    Ok(())
}

fn ext_fields<'a>(scan: &mut Scan<'a>, command: &mut Command<'a>) -> Result<(), DecodeError> {
    if scan.literal(b"null") {
        return Ok(());
    }
    scan.members(|scan, name| {
        scan.blanks();
        // A null value is an absent field.
        let Some(span) = scan.span()? else {
            return Ok(());
        };
        let value = (span.at, span.end - span.at);
        let name = (name.at, name.end - name.at);
        match command.fields.add(name, value, span.escaped) {
            Added::New => Ok(()),
            Added::Replaced => Err(scan.broken("a field comes twice")),
            Added::Full => Err(DecodeError::TooManyFields),
        }
    })
}

/// By name as Java writes it, or by number as some others do.
fn language(value: Text<'_>) -> Language {
    match value.parse_i32() {
        Some(number) => u8::try_from(number).map_or(Language::OTHER, Language),
        None => Language::from_name(value.raw()),
    }
}

/// Positions of a string's inside, or of a bare number or word.
#[derive(Clone, Copy)]
struct Span {
    at: usize,
    end: usize,
    escaped: bool,
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    /// An object: calls `each` behind the colon of every member, which must read the value.
    fn members(
        &mut self,
        mut each: impl FnMut(&mut Scan<'a>, Span) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.blanks();
        self.expect(b'{', "an object should start here")?;
        self.blanks();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.blanks();
            let name = self.string()?;
            self.blanks();
            self.expect(b':', "a colon should follow the name")?;
            each(self, name)?;
            self.blanks();
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',', "a comma or a closing brace should follow")?;
        }
    }

    /// A string, number or word; `None` for null.
    fn value(&mut self) -> Result<Option<Text<'a>>, DecodeError> {
        self.blanks();
        let span = self.span()?;
        Ok(span.map(|span| Text::scanned(&self.bytes[span.at..span.end], span.escaped)))
    }

    fn i32(&mut self) -> Result<i32, DecodeError> {
        match self.value()? {
            None => Ok(0),
            Some(text) => text
                .parse_i32()
                .ok_or_else(|| self.broken("a number should stand here")),
        }
    }

    fn span(&mut self) -> Result<Option<Span>, DecodeError> {
        match self.bytes.get(self.at) {
            Some(b'"') => self.string().map(Some),
            Some(b'{' | b'[') => Err(self.broken("a plain value should stand here")),
            _ => self.bare(),
        }
    }

    /// A number, true, false or null.
    fn bare(&mut self) -> Result<Option<Span>, DecodeError> {
        let start = self.at;
        while let Some(byte) = self.bytes.get(self.at)
            && (byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.'))
        {
            self.at += 1;
        }
        let span = Span {
            at: start,
            end: self.at,
            escaped: false,
        };
        match &self.bytes[start..self.at] {
            b"null" => Ok(None),
            b"true" | b"false" => Ok(Some(span)),
            [b'-' | b'0'..=b'9', ..] => Ok(Some(span)),
            _ => {
                self.at = start;
                Err(self.broken("a value should stand here"))
            }
        }
    }

    /// A string; escapes are checked here so that nobody has to later.
    fn string(&mut self) -> Result<Span, DecodeError> {
        self.expect(b'"', "a string should start here")?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += quote_or_backslash(&self.bytes[self.at..]);
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(_) => {
                    escaped = true;
                    self.escape()?;
                }
                None => return Err(self.broken("a string without an end")),
            }
        }
        let end = self.at;
        self.at += 1;
        Ok(Span {
            at: start,
            end,
            escaped,
        })
    }

    fn escape(&mut self) -> Result<(), DecodeError> {
        let length = match self.bytes[self.at..] {
            [
                _,
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't',
                ..,
            ] => 2,
            [_, b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return Err(self.broken("an unknown escape")),
        };
        self.at += length;
        Ok(())
    }

    /// Passes over a value of any shape, without recursion.
    fn skip(&mut self) -> Result<(), DecodeError> {
        let mut depth = 0usize;
        loop {
            self.blanks();
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                    if depth > DEPTH_MAX {
                        return Err(self.broken("nested too deeply"));
                    }
                    continue;
                }
                Some(b'}' | b']' | b',' | b':') if depth > 0 => {
                    if matches!(self.bytes[self.at], b'}' | b']') {
                        depth -= 1;
                    }
                    self.at += 1;
                    if depth > 0 {
                        continue;
                    }
                }
                _ => {
                    self.bare()?;
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &[u8]) -> bool {
        self.blanks();
        let found = self.bytes[self.at..].starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), DecodeError> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.broken(what))
        }
    }

    #[cold]
    fn broken(&self, what: &'static str) -> DecodeError {
        DecodeError::Json { at: self.at, what }
    }
}

/// Where the first `"` or `\` is, eight bytes at a step; the length when there is none.
fn quote_or_backslash(bytes: &[u8]) -> usize {
    let mut at = 0;
    for chunk in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight"));
        let hits = zero_bytes(word ^ repeat(b'"')) | zero_bytes(word ^ repeat(b'\\'));
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let tail = bytes[at..]
        .iter()
        .position(|&byte| byte == b'"' || byte == b'\\');
    at + tail.unwrap_or(bytes.len() - at)
}

const fn repeat(byte: u8) -> u64 {
    0x0101_0101_0101_0101 * byte as u64
}

/// The top bit of the lowest zero byte is set (bits above the first hit may be wrong).
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(repeat(1)) & !word & repeat(0x80)
}

/// Appends `text` as the inside of a JSON string.
pub(crate) fn append_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut clean_from = 0;
    for (at, &byte) in text.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text[clean_from..at]);
        clean_from = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0C => out.extend_from_slice(b"\\f"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
    }
    out.extend_from_slice(&text[clean_from..]);
}

#[cfg(test)]
mod tests;
