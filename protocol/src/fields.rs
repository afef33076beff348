//! The named values of a header (RocketMQ's `extFields`), borrowed from the frame.
//!
//! Slots are positions in the header, 16 bytes each; the first 24 fields need no heap. Looking a
//! field up walks the slots: requests have a handful, and the hot ones are read in one pass.

use std::borrow::Cow;

use crate::frame::HEADER_BYTES_MAX;
use crate::text::Text;

/// More fields than this in one header is an attack, not a request.
pub const FIELDS_MAX: usize = 256;

const FIELDS_INLINE: usize = 24;

/// A field that is missing or unreadable; the request is answered with it, the connection lives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("the custom field <{0}> is null")]
    Missing(&'static str),
    #[error("the custom field <{name}> is not a number: {value}")]
    NotANumber { name: &'static str, value: String },
}

/// Where a piece of text lies in the header, and whether it has escapes: one word, so that it
/// travels in a register. A header has 24 bits of length.
///
/// ```text
/// | position: 32 | escaped: 1 | length: 31 |
/// ```
#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) struct Span(u64);

impl Span {
    const ESCAPED: u64 = 1 << 31;
    /// No place in any header.
    pub(crate) const NOWHERE: Span = Span(u64::MAX);

    #[inline]
    pub(crate) fn new(at: usize, end: usize, escaped: bool) -> Span {
        debug_assert!(at <= end && end <= HEADER_BYTES_MAX);
        let escaped = u64::from(escaped) * Span::ESCAPED;
        Span((at as u64) << 32 | escaped | (end - at) as u64)
    }

    #[inline]
    pub(crate) fn bytes(self, header: &[u8]) -> &[u8] {
        let at = (self.0 >> 32) as usize;
        let len = (self.0 & (Span::ESCAPED - 1)) as usize;
        &header[at..at + len]
    }

    #[inline]
    pub(crate) fn text(self, header: &[u8]) -> Text<'_> {
        Text::scanned(self.bytes(header), self.0 & Span::ESCAPED != 0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 & (Span::ESCAPED - 1) == 0
    }
}

/// A name and its value.
#[derive(Clone, Copy, Default)]
struct Slot {
    name: Span,
    value: Span,
}

const _: () = assert!(std::mem::size_of::<Slot>() == 16);

/// What adding a field found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Added {
    New,
    /// The name was there before; the slot's value is the new one now.
    Replaced,
    Full,
}

/// Name and value pairs of one header, in wire order.
#[derive(Clone)]
pub struct Fields<'a> {
    header: &'a [u8],
    inline: [Slot; FIELDS_INLINE],
    more: Vec<Slot>,
    len: usize,
    /// One bit per name seen, by a cheap hash: a clear bit saves the search for a duplicate.
    seen: u64,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(header: &'a [u8]) -> Fields<'a> {
        Fields {
            header,
            inline: [Slot::default(); FIELDS_INLINE],
            more: Vec::new(),
            len: 0,
            seen: 0,
        }
    }

    /// Adds a field by its places in the header.
    #[inline]
    pub(crate) fn add(&mut self, name: Span, value: Span) -> Added {
        let bit = 1u64 << name_hash(name.bytes(self.header));
        let slot = Slot { name, value };
        if self.seen & bit == 0
            && let Some(free) = self.inline.get_mut(self.len)
        {
            self.seen |= bit;
            *free = slot;
            self.len += 1;
            return Added::New;
        }
        self.add_slowly(slot)
    }

    /// Behind the inline slots, or when the name may have been there before.
    fn add_slowly(&mut self, slot: Slot) -> Added {
        let name = slot.name.bytes(self.header);
        self.seen |= 1 << name_hash(name);
        let header = self.header;
        let mut slots = self.inline[..self.len.min(FIELDS_INLINE)]
            .iter_mut()
            .chain(&mut self.more);
        if let Some(same) = slots.find(|slot| slot.name.bytes(header) == name) {
            *same = slot;
            return Added::Replaced;
        }
        if self.len == FIELDS_MAX {
            return Added::Full;
        }
        match self.inline.get_mut(self.len) {
            Some(free) => *free = slot,
            None => self.more.push(slot),
        }
        self.len += 1;
        Added::New
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All fields in wire order; names in wire form.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Text<'a>)> + '_ {
        let header = self.header;
        self.slots()
            .map(move |slot| (slot.name.bytes(header), slot.value.text(header)))
    }

    pub fn get(&self, name: &str) -> Option<Text<'a>> {
        self.slots()
            .find(|slot| slot.name.bytes(self.header) == name.as_bytes())
            .map(|slot| slot.value.text(self.header))
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.inline[..self.len.min(FIELDS_INLINE)]
            .iter()
            .chain(&self.more)
    }

    pub fn string(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).map(|text| text.as_str())
    }

    pub fn required_string(&self, name: &'static str) -> Result<Cow<'a, str>, FieldError> {
        self.string(name).ok_or(FieldError::Missing(name))
    }

    pub fn i32(&self, name: &'static str) -> Result<Option<i32>, FieldError> {
        self.get(name)
            .map(|text| number_i32(name, text))
            .transpose()
    }

    pub fn required_i32(&self, name: &'static str) -> Result<i32, FieldError> {
        self.i32(name)?.ok_or(FieldError::Missing(name))
    }

    pub fn i64(&self, name: &'static str) -> Result<Option<i64>, FieldError> {
        self.get(name)
            .map(|text| number_i64(name, text))
            .transpose()
    }

    pub fn required_i64(&self, name: &'static str) -> Result<i64, FieldError> {
        self.i64(name)?.ok_or(FieldError::Missing(name))
    }

    /// A flag; whatever is not "true" is false, so this cannot fail on the value.
    pub fn bool(&self, name: &'static str) -> Result<Option<bool>, FieldError> {
        Ok(self.get(name).map(|text| text.parse_bool()))
    }

    pub fn required_bool(&self, name: &'static str) -> Result<bool, FieldError> {
        self.bool(name)?.ok_or(FieldError::Missing(name))
    }
}

impl std::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .map(|(name, value)| (String::from_utf8_lossy(name), value.as_str())),
            )
            .finish()
    }
}

/// 0..64. One-letter names (the hot header) all differ.
#[inline]
fn name_hash(name: &[u8]) -> u32 {
    match name {
        [] => 0,
        [only] => u32::from(*only) & 63,
        [first, .., last] => {
            (u32::from(*first) * 7 + u32::from(*last) * 3 + name.len() as u32 * 5) & 63
        }
    }
}

pub(crate) fn number_i32(name: &'static str, text: Text<'_>) -> Result<i32, FieldError> {
    text.parse_i32().ok_or_else(|| not_a_number(name, text))
}

pub(crate) fn number_i64(name: &'static str, text: Text<'_>) -> Result<i64, FieldError> {
    text.parse_i64().ok_or_else(|| not_a_number(name, text))
}

#[cold]
fn not_a_number(name: &'static str, text: Text<'_>) -> FieldError {
    const SHOWN_CHARS_MAX: usize = 40;
    FieldError::NotANumber {
        name,
        value: text.as_str().chars().take(SHOWN_CHARS_MAX).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(at: usize, len: usize) -> Span {
        Span::new(at, at + len, false)
    }

    fn filled(count: usize, header: &mut Vec<u8>) -> Vec<Span> {
        (0..count)
            .map(|number| {
                let at = header.len();
                header.extend_from_slice(format!("n{number}").as_bytes());
                span(at, header.len() - at)
            })
            .collect()
    }

    #[test]
    fn more_fields_than_fit_inline_are_all_found() {
        let mut header = Vec::new();
        let names = filled(FIELDS_MAX, &mut header);
        let mut fields = Fields::new(&header);
        for &name in &names {
            assert_eq!(fields.add(name, name), Added::New);
        }
        assert_eq!(fields.len(), FIELDS_MAX);
        assert!(fields.get("n0").is_some() && fields.get("n255").is_some());
        assert_eq!(fields.iter().count(), FIELDS_MAX);
    }

    #[test]
    fn a_field_beyond_the_limit_is_refused() {
        let mut header = Vec::new();
        let names = filled(FIELDS_MAX + 1, &mut header);
        let mut fields = Fields::new(&header);
        let last = names.into_iter().map(|name| fields.add(name, name)).last();
        assert_eq!(last, Some(Added::Full));
    }

    #[test]
    fn a_repeated_name_replaces_the_value() {
        let mut fields = Fields::new(b"ab12");
        assert_eq!(fields.add(span(0, 1), span(2, 1)), Added::New);
        assert_eq!(fields.add(span(0, 1), span(3, 1)), Added::Replaced);
        assert_eq!(fields.required_i32("a"), Ok(2));
        assert_eq!(fields.len(), 1);
    }

    #[test]
    fn missing_and_unreadable_fields_say_their_name() {
        let mut fields = Fields::new(b"abc");
        fields.add(span(0, 1), span(1, 2));
        assert_eq!(fields.required_i64("x"), Err(FieldError::Missing("x")));
        assert!(fields.i32("a").unwrap_err().to_string().contains("<a>"));
        assert_eq!(fields.i32("x"), Ok(None));
        assert_eq!(fields.bool("a"), Ok(Some(false)));
    }
}
