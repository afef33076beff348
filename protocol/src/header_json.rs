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
use crate::fields::{Added, Fields, Span};
use crate::scan::find_either;
use crate::text::Text;

/// How deep an unknown value may nest before the header counts as broken.
const DEPTH_MAX: usize = 32;

/// Reads `header` into `command`.
pub(crate) fn read<'a>(header: &'a [u8], command: &mut Command<'a>) -> Result<(), DecodeError> {
    let mut scan = Scan {
        bytes: header,
        at: 0,
        broken: Broken::Object,
    };
    match outer_object(&mut scan, command) {
        Some(()) => Ok(()),
        None => Err(scan.broken.at(scan.at)),
    }
}

fn outer_object<'a>(scan: &mut Scan<'a>, command: &mut Command<'a>) -> Option<()> {
    let mut seen = 0u8;
    scan.members(|scan, name| outer_member(scan, name, command, &mut seen))?;
    scan.blanks();
    if scan.at != scan.bytes.len() {
        return scan.fail(Broken::Trailing);
    }
    Some(())
}

/// One member of the outer object. A key that comes twice is refused: two readers could disagree
/// about it.
fn outer_member<'a>(
    scan: &mut Scan<'a>,
    name: Span,
    command: &mut Command<'a>,
    seen: &mut u8,
) -> Option<()> {
    let bit: u8 = match name.bytes(scan.bytes) {
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
        return scan.fail(Broken::KeyTwice);
    }
    *seen |= bit;
    match bit {
        0b1 => command.code = scan.i32()?,
        0b10 => ext_fields(scan, &mut command.fields)?,
        0b100 => command.flag = scan.i32()?,
        0b1000 => command.language = scan.text()?.map_or(Language::OTHER, language),
        0b1_0000 => command.opaque = scan.i32()?,
        0b10_0000 => command.version = scan.i32()?,
        _ => command.remark = scan.text()?,
    }
    Some(())
}

fn ext_fields<'a>(scan: &mut Scan<'a>, fields: &mut Fields<'a>) -> Option<()> {
    if scan.null() {
        return Some(());
    }
    scan.members(|scan, name| {
        let value = scan.value()?;
        if value == NULL {
            return Some(());
        }
        match fields.add(name, value) {
            Added::New => Some(()),
            Added::Replaced => scan.fail(Broken::FieldTwice),
            Added::Full => scan.fail(Broken::TooManyFields),
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

/// What is wrong; kept in the scanner, so that what its functions return fits registers.
#[derive(Clone, Copy)]
enum Broken {
    Object,
    Colon,
    Comma,
    Value,
    PlainValue,
    Number,
    String,
    StringEnd,
    Escape,
    Depth,
    KeyTwice,
    FieldTwice,
    TooManyFields,
    Trailing,
}

impl Broken {
    #[cold]
    fn at(self, at: usize) -> DecodeError {
        let what = match self {
            Broken::Object => "an object should start here",
            Broken::Colon => "a colon should follow the name",
            Broken::Comma => "a comma or a closing brace should follow",
            Broken::Value => "a value should stand here",
            Broken::PlainValue => "a plain value should stand here",
            Broken::Number => "a number should stand here",
            Broken::String => "a string should start here",
            Broken::StringEnd => "a string without an end",
            Broken::Escape => "an unknown escape",
            Broken::Depth => "nested too deeply",
            Broken::KeyTwice => "a key comes twice",
            Broken::FieldTwice => "a field comes twice",
            Broken::Trailing => "bytes behind the object",
            Broken::TooManyFields => return DecodeError::TooManyFields,
        };
        DecodeError::Json { at, what }
    }
}

/// In place of a value: the word null. No string has these bounds, since it stands in quotes.
const NULL: Span = Span::NOWHERE;

/// `None` from one of its functions means that the header is broken, and `broken` says how.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    broken: Broken,
}

impl<'a> Scan<'a> {
    #[cold]
    fn fail<T>(&mut self, broken: Broken) -> Option<T> {
        self.broken = broken;
        None
    }

    /// An object: calls `each` behind the colon of every member, which must read the value.
    #[inline]
    fn members(&mut self, mut each: impl FnMut(&mut Scan<'a>, Span) -> Option<()>) -> Option<()> {
        self.blanks();
        self.expect(b'{', Broken::Object)?;
        self.blanks();
        if self.take(b'}') {
            return Some(());
        }
        loop {
            let name = self.name()?;
            each(self, name)?;
            self.blanks();
            if self.take(b'}') {
                return Some(());
            }
            self.expect(b',', Broken::Comma)?;
        }
    }

    /// The name of a member and the colon behind it.
    #[inline]
    fn name(&mut self) -> Option<Span> {
        // A send has almost only names of one letter.
        if let [b'"', letter, b'"', b':', ..] = self.bytes[self.at..]
            && letter.is_ascii_alphanumeric()
        {
            self.at += 4;
            return Some(Span::new(self.at - 3, self.at - 2, false));
        }
        self.blanks();
        let name = self.string()?;
        self.blanks();
        self.expect(b':', Broken::Colon)?;
        Some(name)
    }

    /// A string, number or word, or [`NULL`].
    #[inline(always)]
    fn value(&mut self) -> Option<Span> {
        self.blanks();
        match self.bytes.get(self.at) {
            Some(b'"') => self.string(),
            Some(b'{' | b'[') => self.fail(Broken::PlainValue),
            _ => self.bare(),
        }
    }

    fn text(&mut self) -> Option<Option<Text<'a>>> {
        let value = self.value()?;
        Some((value != NULL).then(|| value.text(self.bytes)))
    }

    fn i32(&mut self) -> Option<i32> {
        match self.text()? {
            None => Some(0),
            Some(text) => match text.parse_i32() {
                None => self.fail(Broken::Number),
                number => number,
            },
        }
    }

    /// A number, true, false or null.
    fn bare(&mut self) -> Option<Span> {
        let start = self.at;
        while let Some(byte) = self.bytes.get(self.at)
            && (byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.'))
        {
            self.at += 1;
        }
        match &self.bytes[start..self.at] {
            b"null" => Some(NULL),
            b"true" | b"false" | [b'-' | b'0'..=b'9', ..] => Some(Span::new(start, self.at, false)),
            _ => {
                self.at = start;
                self.fail(Broken::Value)
            }
        }
    }

    /// A string; escapes are checked here so that nobody has to later.
    #[inline(always)]
    fn string(&mut self) -> Option<Span> {
        self.expect(b'"', Broken::String)?;
        let start = self.at;
        let mut at = start;
        let mut escaped = false;
        loop {
            at += find_either::<b'"', b'\\'>(&self.bytes[at..]);
            match self.bytes.get(at) {
                Some(b'"') => break,
                Some(_) => match escape_len(&self.bytes[at..]) {
                    0 => return self.fail(Broken::Escape),
                    length => {
                        escaped = true;
                        at += length;
                    }
                },
                None => return self.fail(Broken::StringEnd),
            }
        }
        self.at = at + 1;
        Some(Span::new(start, at, escaped))
    }

    /// Passes over a value of any shape, without recursion. Looks only at what it needs to find
    /// the value's end.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            self.blanks();
            match self.bytes.get(self.at) {
                Some(b'"') => drop(self.string()?),
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                    if depth > DEPTH_MAX {
                        return self.fail(Broken::Depth);
                    }
                }
                Some(b'}' | b']') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':') if depth > 0 => self.at += 1,
                _ => drop(self.bare()?),
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    #[inline]
    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn null(&mut self) -> bool {
        self.blanks();
        let found = self.bytes[self.at..].starts_with(b"null");
        if found {
            self.at += b"null".len();
        }
        found
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn expect(&mut self, byte: u8, broken: Broken) -> Option<()> {
        if self.take(byte) {
            Some(())
        } else {
            self.fail(broken)
        }
    }
}

/// The length of the escape at the start of `bytes`; 0 if there is no such escape.
#[inline]
fn escape_len(bytes: &[u8]) -> usize {
    match bytes {
        // The separators of properties are nearly all the escapes there are.
        [_, b'u', b'0', b'0', b'0', b'1' | b'2', ..] => 6,
        [_, b'u', digits @ ..] => match digits.first_chunk::<4>() {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => 6,
            _ => 0,
        },
        [
            _,
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't',
            ..,
        ] => 2,
        _ => 0,
    }
}

/// Appends `text` as the inside of a JSON string.
pub(crate) fn append_escaped(out: &mut Vec<u8>, text: &[u8]) {
    // Most texts need nothing; asking all bytes at once is cheaper than one by one.
    let needs = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    if !text.iter().fold(false, |any, &byte| any | needs(byte)) {
        return out.extend_from_slice(text);
    }
    let mut clean_from = 0;
    for (at, &byte) in text.iter().enumerate() {
        if !needs(byte) {
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
