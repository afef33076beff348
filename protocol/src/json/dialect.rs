//! Writing JSON in either spelling, through serde.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

/// How JSON is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Every key quoted.
    Strict,
    /// As fastjson 1 writes: number keys stand bare.
    Fastjson1,
}

/// Writes a value whose maps and structs serialize without failing (all of [`crate::body`]).
pub fn to_vec<T: Serialize>(value: &T, dialect: Dialect) -> Vec<u8> {
    match dialect {
        Dialect::Strict => write(value, CompactFormatter),
        Dialect::Fastjson1 => write(value, BareNumberKeys::default()),
    }
}

/// Tabs, one member a line, and a bare number as key, as in RocketMQ's config files.
pub(super) fn to_vec_pretty<T: Serialize>(value: &T) -> Vec<u8> {
    let bare = BareNumberKeys {
        pretty: true,
        ..BareNumberKeys::default()
    };
    write(value, bare)
}

fn write<T: Serialize>(value: &T, formatter: impl Formatter) -> Vec<u8> {
    let mut out = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut out, formatter))
        .expect("writing to memory, and bodies have string or number keys only");
    out
}

/// Where the writer is with regard to a key, whose quotes wait until it shows what it is.
#[derive(Clone, Copy, Default, PartialEq)]
enum Key {
    #[default]
    None,
    /// Begun; the opening quote is owed.
    Held,
    Quoted,
    Bare,
}

/// Fastjson 1: number keys without quotes; in `pretty`, one member a line behind tabs.
#[derive(Default)]
struct BareNumberKeys {
    key: Key,
    pretty: bool,
    depth: usize,
    /// The container just opened has nothing in it yet.
    empty: bool,
}

impl BareNumberKeys {
    fn open<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        out.write_all(bracket)
    }

    fn close<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        // Fastjson gives an empty container a line of its own.
        if std::mem::take(&mut self.empty) {
            self.line(out)?;
        }
        self.depth -= 1;
        self.line(out)?;
        out.write_all(bracket)
    }

    fn next<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        self.empty = false;
        self.line(out)
    }

    fn line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        if !self.pretty {
            return Ok(());
        }
        out.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| out.write_all(b"\t"))
    }

    fn quote_key<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        if self.key == Key::Held {
            self.key = Key::Quoted;
            out.write_all(b"\"")?;
        }
        Ok(())
    }
}

impl Formatter for BareNumberKeys {
    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.next(out, first)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.key = Key::Held;
        self.next(out, first)
    }

    fn end_object_key<W: ?Sized + Write>(&mut self, _out: &mut W) -> io::Result<()> {
        self.key = Key::None;
        Ok(())
    }

    fn begin_string<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        match self.key {
            Key::None => out.write_all(b"\""),
            _ => Ok(()),
        }
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        self.quote_key(out)?;
        out.write_all(fragment.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        self.quote_key(out)?;
        CompactFormatter.write_char_escape(out, escape)
    }

    fn write_i32<W: ?Sized + Write>(&mut self, out: &mut W, value: i32) -> io::Result<()> {
        self.write_i64(out, i64::from(value))
    }

    fn write_i64<W: ?Sized + Write>(&mut self, out: &mut W, value: i64) -> io::Result<()> {
        if self.key == Key::Held {
            self.key = Key::Bare;
        }
        CompactFormatter.write_i64(out, value)
    }

    fn end_string<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        match self.key {
            Key::Bare => Ok(()),
            Key::Held => out.write_all(b"\"\""),
            Key::None | Key::Quoted => out.write_all(b"\""),
        }
    }
}
