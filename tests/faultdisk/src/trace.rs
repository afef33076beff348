//! The record of everything that was done to a disk, in the order it was done, with marks from outside between. A file
//! of length-prefixed events; whoever cuts it short loses its end only.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use crate::names::{Change, Id};

mod code;
mod show;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Names(Change),
    Write {
        id: Id,
        offset: u64,
        bytes: Vec<u8>,
    },
    /// The bytes of a range became zero; the length is not changed.
    Zero {
        id: Id,
        offset: u64,
        len: u64,
    },
    SetLen {
        id: Id,
        len: u64,
    },
    /// A range became durable by itself (O_DSYNC), and the length if it is needed to find it.
    SyncRange {
        id: Id,
        offset: u64,
        len: u64,
    },
    /// The length became durable.
    SyncLen {
        id: Id,
    },
    /// Content and length became durable.
    Sync {
        id: Id,
    },
    SyncDirectory {
        id: Id,
    },
    /// What somebody outside wanted to remember at this moment.
    Mark(String),
}

pub struct Recorder {
    to: BufWriter<File>,
    buffer: Vec<u8>,
}

impl Recorder {
    pub fn create(path: &Path) -> io::Result<Recorder> {
        Ok(Recorder {
            to: BufWriter::with_capacity(1 << 20, File::create(path)?),
            buffer: Vec::new(),
        })
    }

    pub fn record(&mut self, event: &Event) -> io::Result<()> {
        self.buffer.clear();
        code::append(event, &mut self.buffer);
        let len = u32::try_from(self.buffer.len()).expect("writes are far below 4 GiB");
        self.to.write_all(&len.to_le_bytes())?;
        self.to.write_all(&self.buffer)
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The events of a trace, up to its end or to where it is cut short.
pub fn read(path: &Path) -> io::Result<Vec<Event>> {
    let mut from = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut events = Vec::new();
    let mut buffer = Vec::new();
    let mut word = [0; 4];
    loop {
        match from.read_exact(&mut word) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(events),
            other => other?,
        }
        buffer.resize(u32::from_le_bytes(word) as usize, 0);
        match from.read_exact(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(events),
            other => other?,
        }
        let event = code::parse(&buffer)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a trace"))?;
        events.push(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Kind, Place};

    #[test]
    fn a_trace_is_read_back_up_to_where_it_ends() {
        let at = |name: &str| Place::new(Id(1), name);
        let id = Id(7);
        let events = vec![
            Event::Names(Change::Link {
                at: at("a"),
                id,
                kind: Kind::File,
            }),
            Event::Names(Change::Link {
                at: at("d"),
                id: Id(8),
                kind: Kind::Directory,
            }),
            Event::Write {
                id,
                offset: 9,
                bytes: vec![1, 2, 3],
            },
            Event::Zero {
                id,
                offset: 1,
                len: 2,
            },
            Event::SetLen { id, len: 3 },
            Event::SyncRange {
                id,
                offset: 4,
                len: 5,
            },
            Event::SyncLen { id },
            Event::Sync { id },
            Event::SyncDirectory { id: Id(1) },
            Event::Names(Change::Rename {
                from: at("a"),
                to: at("ü"),
            }),
            Event::Names(Change::Unlink { at: at("ü") }),
            Event::Mark("ack t 0 1".into()),
        ];
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("trace");
        let mut recorder = Recorder::create(&path).expect("a new file");
        for event in &events {
            recorder.record(event).expect("room on the disk");
        }
        recorder.flush().expect("room on the disk");
        assert_eq!(read(&path).expect("just written"), events);
        let bytes = std::fs::read(&path).expect("just written");
        std::fs::write(&path, &bytes[..bytes.len() - 3]).expect("room on the disk");
        assert_eq!(
            read(&path).expect("cut short, but valid"),
            events[..events.len() - 1]
        );
    }
}
