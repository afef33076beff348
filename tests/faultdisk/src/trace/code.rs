//! One event as bytes: a letter for its kind, then its fields; numbers little-endian, texts behind their length.

use super::Event;
use crate::names::{Change, Id, Kind, Place};

pub(super) fn append(event: &Event, out: &mut Vec<u8>) {
    match event {
        Event::Names(Change::Link { at, id, kind }) => {
            out.push(match kind {
                Kind::File => b'f',
                Kind::Directory => b'd',
            });
            numbers(out, &[id.0]);
            place(out, at);
        }
        Event::Names(Change::Unlink { at }) => {
            out.push(b'u');
            place(out, at);
        }
        Event::Names(Change::Rename { from, to }) => {
            out.push(b'r');
            place(out, from);
            place(out, to);
        }
        Event::Write { id, offset, bytes } => {
            out.push(b'w');
            numbers(out, &[id.0, *offset]);
            out.extend_from_slice(bytes);
        }
        Event::Zero { id, offset, len } => {
            out.push(b'z');
            numbers(out, &[id.0, *offset, *len]);
        }
        Event::SetLen { id, len } => {
            out.push(b'l');
            numbers(out, &[id.0, *len]);
        }
        Event::SyncRange { id, offset, len } => {
            out.push(b'R');
            numbers(out, &[id.0, *offset, *len]);
        }
        Event::SyncLen { id } => {
            out.push(b'L');
            numbers(out, &[id.0]);
        }
        Event::Sync { id } => {
            out.push(b'S');
            numbers(out, &[id.0]);
        }
        Event::SyncDirectory { id } => {
            out.push(b'D');
            numbers(out, &[id.0]);
        }
        Event::Mark(text) => {
            out.push(b'm');
            out.extend_from_slice(text.as_bytes());
        }
    }
}

fn numbers(out: &mut Vec<u8>, values: &[u64]) {
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn place(out: &mut Vec<u8>, at: &Place) {
    numbers(out, &[at.directory.0, at.name.len() as u64]);
    out.extend_from_slice(at.name.as_bytes());
}

/// `None`: not an event.
pub(super) fn parse(bytes: &[u8]) -> Option<Event> {
    let (kind, rest) = bytes.split_first()?;
    let mut rest = Rest(rest);
    let event = match kind {
        b'f' | b'd' => {
            let id = rest.id()?;
            Event::Names(Change::Link {
                at: rest.place()?,
                id,
                kind: match kind {
                    b'f' => Kind::File,
                    _ => Kind::Directory,
                },
            })
        }
        b'u' => Event::Names(Change::Unlink { at: rest.place()? }),
        b'r' => Event::Names(Change::Rename {
            from: rest.place()?,
            to: rest.place()?,
        }),
        b'w' => Event::Write {
            id: rest.id()?,
            offset: rest.number()?,
            bytes: rest.all().to_vec(),
        },
        b'z' => Event::Zero {
            id: rest.id()?,
            offset: rest.number()?,
            len: rest.number()?,
        },
        b'l' => Event::SetLen {
            id: rest.id()?,
            len: rest.number()?,
        },
        b'R' => Event::SyncRange {
            id: rest.id()?,
            offset: rest.number()?,
            len: rest.number()?,
        },
        b'L' => Event::SyncLen { id: rest.id()? },
        b'S' => Event::Sync { id: rest.id()? },
        b'D' => Event::SyncDirectory { id: rest.id()? },
        b'm' => Event::Mark(String::from_utf8(rest.all().to_vec()).ok()?),
        _ => return None,
    };
    rest.0.is_empty().then_some(event)
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn number(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*word))
    }

    fn id(&mut self) -> Option<Id> {
        self.number().map(Id)
    }

    fn place(&mut self) -> Option<Place> {
        let directory = self.id()?;
        let len = usize::try_from(self.number()?).ok()?;
        let (name, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(Place::new(directory, std::str::from_utf8(name).ok()?))
    }

    fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
