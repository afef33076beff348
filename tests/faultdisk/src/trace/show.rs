//! Events as lines for humans.

use std::fmt::{Display, Formatter, Result};

use super::Event;
use crate::names::{Change, Kind, Place};

impl Display for Event {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        match self {
            Event::Names(change) => change.fmt(out),
            Event::Write { id, offset, bytes } => {
                write!(out, "write {} {offset} {}", id.0, bytes.len())
            }
            Event::Zero { id, offset, len } => write!(out, "zero {} {offset} {len}", id.0),
            Event::SetLen { id, len } => write!(out, "length {} {len}", id.0),
            Event::SyncRange { id, offset, len } => {
                write!(out, "durable {} {offset} {len}", id.0)
            }
            Event::SyncLen { id } => write!(out, "durable {} length", id.0),
            Event::Sync { id } => write!(out, "sync {}", id.0),
            Event::SyncDirectory { id } => write!(out, "sync directory {}", id.0),
            Event::Mark(text) => write!(out, "mark {text}"),
        }
    }
}

impl Display for Change {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        match self {
            Change::Link { at, id, kind } => {
                let kind = match kind {
                    Kind::File => "file",
                    Kind::Directory => "directory",
                };
                write!(out, "new {kind} {} at {at}", id.0)
            }
            Change::Unlink { at } => write!(out, "unlink {at}"),
            Change::Rename { from, to } => write!(out, "rename {from} to {to}"),
        }
    }
}

impl Display for Place {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        write!(out, "{}/{}", self.directory.0, self.name)
    }
}
