//! The named values of a header (RocketMQ's `extFields`), borrowed from the frame.
//!
//! Slots are positions in the header, 16 bytes each; the first 24 fields need no heap. Looking a
//! field up walks the slots: requests have a handful, and the hot ones are read in one pass.

use std::borrow::Cow;

use crate::text::Text;

/// More fields than this in one header is an attack, not a request.
pub const FIELDS_MAX: usize = 256;

const FIELDS_INLINE: usize = 24;
const ESCAPED: u32 = 1 << 31;

/// A field that is missing or unreadable; the request is answered with it, the connection lives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("the custom field <{0}> is null")]
    Missing(&'static str),
    #[error("the custom field <{name}> is not a number: {value}")]
    NotANumber { name: &'static str, value: String },
}

/// Where a name and its value lie in the header. `value_len` carries the escape mark.
#[derive(Clone, Copy, Default)]
struct Slot {
    name_at: u32,
    name_len: u32,
    value_at: u32,
    value_len: u32,
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

    /// Adds a field by its positions in the header.
    pub(crate) fn add(
        &mut self,
        name: (usize, usize),
        value: (usize, usize),
        escaped: bool,
    ) -> Added {
        debug_assert!(name.0 + name.1 <= self.header.len());
        debug_assert!(value.0 + value.1 <= self.header.len());
        let slot = Slot {
            name_at: name.0 as u32,
            name_len: name.1 as u32,
            value_at: value.0 as u32,
            value_len: value.1 as u32 | if escaped { ESCAPED } else { 0 },
        };
        let name = &self.header[name.0..name.0 + name.1];
        let bit = 1 << name_hash(name);
        if self.seen & bit != 0
            && let Some(at) = (0..self.len).find(|&at| self.name_of(self.slot(at)) == name)
        {
            match at.checked_sub(FIELDS_INLINE) {
                None => self.inline[at] = slot,
                Some(at) => self.more[at] = slot,
            }
            return Added::Replaced;
        }
        if self.len == FIELDS_MAX {
            return Added::Full;
        }
        self.seen |= bit;
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
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Text<'a>)> + '_ {
        (0..self.len).map(|at| {
            let slot = self.slot(at);
            (self.name_of(slot), self.value_of(slot))
        })
    }

    pub fn get(&self, name: &str) -> Option<Text<'a>> {
        (0..self.len)
            .map(|at| self.slot(at))
            .find(|slot| self.name_of(slot) == name.as_bytes())
            .map(|slot| self.value_of(slot))
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

    fn slot(&self, at: usize) -> &Slot {
        match at.checked_sub(FIELDS_INLINE) {
            None => &self.inline[at],
            Some(at) => &self.more[at],
        }
    }

    fn name_of(&self, slot: &Slot) -> &'a [u8] {
        let at = slot.name_at as usize;
        &self.header[at..at + slot.name_len as usize]
    }

    fn value_of(&self, slot: &Slot) -> Text<'a> {
        let at = slot.value_at as usize;
        let len = (slot.value_len & !ESCAPED) as usize;
        Text::scanned(&self.header[at..at + len], slot.value_len & ESCAPED != 0)
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

    fn filled(count: usize, header: &mut Vec<u8>) -> Vec<(usize, usize)> {
        (0..count)
            .map(|number| {
                let at = header.len();
                header.extend_from_slice(format!("n{number}").as_bytes());
                (at, header.len() - at)
            })
            .collect()
    }

    #[test]
    fn more_fields_than_fit_inline_are_all_found() {
        let mut header = Vec::new();
        let names = filled(FIELDS_MAX, &mut header);
        let mut fields = Fields::new(&header);
        for &name in &names {
            assert_eq!(fields.add(name, name, false), Added::New);
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
        let last = names
            .into_iter()
            .map(|name| fields.add(name, name, false))
            .last();
        assert_eq!(last, Some(Added::Full));
    }

    #[test]
    fn a_repeated_name_replaces_the_value() {
        let mut fields = Fields::new(b"ab12");
        assert_eq!(fields.add((0, 1), (2, 1), false), Added::New);
        assert_eq!(fields.add((0, 1), (3, 1), false), Added::Replaced);
        assert_eq!(fields.required_i32("a"), Ok(2));
        assert_eq!(fields.len(), 1);
    }

    #[test]
    fn missing_and_unreadable_fields_say_their_name() {
        let mut fields = Fields::new(b"abc");
        fields.add((0, 1), (1, 2), false);
        assert_eq!(fields.required_i64("x"), Err(FieldError::Missing("x")));
        assert!(fields.i32("a").unwrap_err().to_string().contains("<a>"));
        assert_eq!(fields.i32("x"), Ok(None));
        assert_eq!(fields.bool("a"), Ok(Some(false)));
    }
}
