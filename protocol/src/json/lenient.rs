//! Fastjson's loose JSON made strict, in one pass.
//!
//! Keys without quotes, or in single ones, get double quotes; a key that is an object becomes a
//! string holding that object; strings in single quotes get double ones. What is broken stays
//! broken: the strict parser behind this says so.

use std::borrow::Cow;

/// Deeper input is handed on as it is, for the strict parser to refuse.
const DEPTH_MAX: usize = 64;

/// The strict form of `bytes`; borrowed when it was strict already.
pub fn lenient(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut strict = Strict {
        bytes,
        at: 0,
        out: Vec::with_capacity(bytes.len() + bytes.len() / 8),
        open: Vec::new(),
        changed: false,
    };
    strict.document();
    if strict.changed {
        Cow::Owned(strict.out)
    } else {
        Cow::Borrowed(bytes)
    }
}

/// What an open bracket is, and where in the output it began if it stands as a key.
#[derive(Clone, Copy)]
struct Open {
    object: bool,
    key_from: Option<usize>,
}

struct Strict<'a> {
    bytes: &'a [u8],
    at: usize,
    out: Vec<u8>,
    open: Vec<Open>,
    changed: bool,
}

impl Strict<'_> {
    fn document(&mut self) {
        let mut key_next = false;
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'{' | b'[' => {
                    // A key within a key would have its quotes escaped twice, and so on: the
                    // output would double with each level.
                    let key_in_key =
                        key_next && self.open.iter().any(|open| open.key_from.is_some());
                    if self.open.len() == DEPTH_MAX || key_in_key {
                        return self.give_up();
                    }
                    self.open.push(Open {
                        object: byte == b'{',
                        key_from: key_next.then_some(self.out.len()),
                    });
                    self.copy();
                    key_next = byte == b'{';
                }
                b'}' | b']' => {
                    self.copy();
                    key_next = false;
                    if let Some(Open {
                        key_from: Some(from),
                        ..
                    }) = self.open.pop()
                    {
                        self.quote_from(from);
                    }
                }
                b',' => {
                    self.copy();
                    key_next = self.open.last().is_some_and(|open| open.object);
                }
                b':' => {
                    self.copy();
                    key_next = false;
                }
                b'"' => self.double_quoted(),
                b'\'' => self.single_quoted(),
                b' ' | b'\t' | b'\r' | b'\n' => self.copy(),
                _ => self.bare(key_next),
            }
        }
    }

    fn copy(&mut self) {
        self.out.push(self.bytes[self.at]);
        self.at += 1;
    }

    /// Hands the input on unchanged.
    fn give_up(&mut self) {
        self.changed = false;
        self.at = self.bytes.len();
    }

    fn double_quoted(&mut self) {
        self.copy();
        while let Some(&byte) = self.bytes.get(self.at) {
            self.copy();
            match byte {
                b'"' => return,
                b'\\' if self.at < self.bytes.len() => self.copy(),
                // Fastjson takes control characters as they are.
                0..0x20 => self.escape_last(byte),
                _ => {}
            }
        }
    }

    fn single_quoted(&mut self) {
        self.changed = true;
        self.out.push(b'"');
        self.at += 1;
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'\'' => return self.out.push(b'"'),
                b'"' => self.out.extend_from_slice(b"\\\""),
                b'\\' => match self.bytes.get(self.at) {
                    Some(b'\'') => {
                        self.out.push(b'\'');
                        self.at += 1;
                    }
                    Some(&next) => {
                        self.out.extend_from_slice(&[b'\\', next]);
                        self.at += 1;
                    }
                    None => {}
                },
                0..0x20 => {
                    self.out.push(byte);
                    self.escape_last(byte);
                }
                other => self.out.push(other),
            }
        }
    }

    fn escape_last(&mut self, byte: u8) {
        self.changed = true;
        self.out.pop();
        crate::header_json::append_escaped(&mut self.out, &[byte]);
    }

    /// A number or word: quoted if it is a key.
    fn bare(&mut self, key: bool) {
        let rest = &self.bytes[self.at..];
        let ends = |byte: &u8| b"{}[]:,\"' \t\r\n".contains(byte);
        let length = rest.iter().position(ends).unwrap_or(rest.len());
        let word = &rest[..length];
        if key {
            self.changed = true;
            self.out.push(b'"');
            crate::header_json::append_escaped(&mut self.out, word);
            self.out.push(b'"');
        } else {
            self.out.extend_from_slice(word);
        }
        self.at += length;
    }

    /// Turns what was written since `from`, an object in key position, into a string.
    fn quote_from(&mut self, from: usize) {
        self.changed = true;
        let object = self.out.split_off(from);
        self.out.push(b'"');
        crate::header_json::append_escaped(&mut self.out, &object);
        self.out.push(b'"');
    }
}
