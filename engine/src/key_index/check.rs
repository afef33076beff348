//! Whether a full segment's key index says what its log says: for the offline check of a store.

use super::collect::{Times, collect};
use super::entry::Entry;
use super::file::KeyFile;
use super::names;
use super::stretch::STRETCH_BYTES;
use crate::layout::Layout;
use crate::queue_index::part::Damage;
use crate::segment::Segment;
use reactor::Buffer;
use std::io;
use std::path::PathBuf;
use xxhash_rust::xxh3::xxh3_64;

const READ_BLOCKS: u64 = 64;
const PAGE_BYTES: u64 = 4096;

/// Entries in any order: how many, and a sum over them.
#[derive(Default, PartialEq, Eq)]
struct Sum {
    entries: u64,
    sum: u64,
}

impl Sum {
    fn add(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.entries += 1;
            self.sum = self.sum.wrapping_add(xxh3_64(&entry.encode()));
        }
    }
}

/// The file of the segment at `base`. It may be missing: it is made again when the store is open.
pub fn path(layout: &Layout, base: u64) -> PathBuf {
    names::sealed(layout, base)
}

/// Reads the whole file and the whole segment, which is full. Returns the number of entries.
pub async fn verify(layout: &Layout, segment: &Segment) -> io::Result<u64> {
    let path = path(layout, segment.base());
    let file = KeyFile::open(&path, segment.base(), segment.bytes())?;
    if !file.head.is_sealed() {
        return Err(Damage::Misplaced.into());
    }
    let in_file = sum_of_file(&file).await?;
    let in_log = sum_of_log(segment).await?;
    if in_file != in_log {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the entries are not those of the log",
        ));
    }
    Ok(in_file.entries)
}

async fn sum_of_file(file: &KeyFile) -> io::Result<Sum> {
    let mut sum = Sum::default();
    let mut last: Option<Entry> = None;
    for block in (0..).step_by(READ_BLOCKS as usize) {
        let entries = file.entries(block, READ_BLOCKS).await?;
        if entries.is_empty() {
            break;
        }
        let mut before = last.into_iter().chain(entries.iter().copied());
        if !before.by_ref().is_sorted() {
            return Err(Damage::Block.into());
        }
        last = entries.last().copied();
        sum.add(&entries);
    }
    Ok(sum)
}

async fn sum_of_log(segment: &Segment) -> io::Result<Sum> {
    let (mut sum, mut times, mut from) = (Sum::default(), Times::NONE, 0);
    let mut buffer = Buffer::with_capacity(STRETCH_BYTES as usize);
    let mut wanted = STRETCH_BYTES;
    while from < segment.bytes() {
        let first = from / PAGE_BYTES * PAGE_BYTES;
        let end = (from + wanted).next_multiple_of(PAGE_BYTES);
        let len = (end.min(segment.bytes()) - first) as usize;
        if buffer.capacity() < len {
            buffer = Buffer::with_capacity(len);
        }
        let (read, back) = segment.file().read_at(buffer, first, len).await;
        buffer = back;
        if read? < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = &buffer[(from - first) as usize..];
        let collected = collect(bytes, segment.base()..segment.end(), from, times);
        if collected.consumed == 0 && collected.next_bytes <= bytes.len() {
            return Err(Damage::Short.into());
        }
        wanted = STRETCH_BYTES.max(collected.next_bytes as u64);
        from += collected.consumed;
        times = collected.times;
        sum.add(&collected.entries);
    }
    Ok(sum)
}
