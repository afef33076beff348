//! How far the companions can be trusted: everything below is known without reading the log.
//!
//! The newest segment with a valid chain of parts, or a valid sealed index, decides. Its directory names every
//! queue's next offset at that place. What is not part of the answer is removed: it is derived, and stale.

use crate::QueueNo;
use crate::dispatch::dispatch;
use crate::layout::{Companion, Layout, parse_companion};
use crate::queue::Registry;
use crate::queue_index::Entry;
use crate::queue_index::keeper::Covered;
use crate::queue_index::part::{BLOCK_BYTES, Damage, Header, Kind, check_block};
use crate::queue_index::sealed::{open_companion, read_directory};
use crate::recovery::walk;
use crate::segment::{Hot, Segment};
use protocol::{record, sysflag};
use reactor::{File, fs};
use std::io;
use std::sync::Arc;

/// Where recovery starts to read.
#[derive(Debug)]
pub struct Checkpoint {
    pub covered: Covered,
    /// Store time of the last record below it.
    pub last_ms: i64,
}

/// Finds the checkpoint, fills the registry with the queues' ends and the index of a growing segment with the
/// entries of its parts. Blocks.
pub fn load(
    layout: &Layout,
    segments: &[Arc<Segment>],
    registry: &Registry,
) -> io::Result<Checkpoint> {
    for (number, segment) in segments.iter().enumerate().rev() {
        let oldest = number == 0;
        if let Some(found) = load_parts(layout, segment, registry, oldest)? {
            return Ok(found);
        }
        if let Some(found) = load_sealed(layout, segment, registry, oldest) {
            return Ok(found);
        }
    }
    let first = segments.first().map_or(0, |segment| segment.base());
    Ok(Checkpoint {
        covered: Covered {
            to: first,
            segment_base: first,
            parts: 0,
        },
        last_ms: 0,
    })
}

/// Everything below was durable when some companion was written. Looks at few of them, and not at the log. Blocks.
pub fn vouched_to(layout: &Layout) -> io::Result<u64> {
    let (mut sealed, mut vouched) = (Vec::new(), 0);
    for name in fs::list(&layout.companions())? {
        match parse_companion(&name) {
            Companion::Sealed { base } => sealed.push(base),
            Companion::Part { base, number } => {
                if let Ok((_, header)) = open_companion(&layout.part(base, number), base) {
                    vouched = header.head.to.max(vouched);
                }
            }
            Companion::Unfinished | Companion::Other => {}
        }
    }
    sealed.sort_unstable();
    let newest = sealed.into_iter().rev();
    let mut valid = newest.filter_map(|base| open_companion(&layout.sealed(base), base).ok());
    let sealed_to = valid.next().map_or(0, |(_, header)| header.head.to);
    Ok(vouched.max(sealed_to))
}

/// The start of every queue that the oldest segment's sealed index lists. Blocks.
pub fn load_starts(layout: &Layout, oldest: &Segment, registry: &Registry) -> io::Result<()> {
    let (file, header) = open_valid(layout, oldest)?;
    let directory = read_directory(&file, &header)?;
    header.directory(&directory, |listed| {
        registry
            .find_or_make(listed.topic, listed.id)
            .raise_min(listed.first);
    })?;
    Ok(())
}

/// Removes unfinished files, and companions that `covered` does not vouch for. Blocks.
pub fn tidy(layout: &Layout, covered: &Covered, first: u64) -> io::Result<()> {
    let mut dirs = layout.spare_dirs().to_vec();
    dirs.push(layout.companions());
    dirs.sort();
    dirs.dedup();
    for dir in dirs {
        for name in fs::list(&dir)? {
            let stale = match parse_companion(&name) {
                Companion::Unfinished => true,
                Companion::Part { base, number } => {
                    base != covered.segment_base || number >= covered.parts
                }
                Companion::Sealed { base } => base < first || base >= covered.segment_base,
                Companion::Other => false,
            };
            if stale {
                tracing::debug!(file = name, "removing a stale companion");
                fs::remove_file(&dir.join(&name))?;
            }
        }
    }
    Ok(())
}

fn load_sealed(
    layout: &Layout,
    segment: &Segment,
    registry: &Registry,
    oldest: bool,
) -> Option<Checkpoint> {
    let load = || -> io::Result<Checkpoint> {
        let (file, header) = open_valid(layout, segment)?;
        load_directory(&file, &header, registry, oldest)?;
        Ok(Checkpoint {
            covered: Covered {
                to: segment.end(),
                segment_base: segment.end(),
                parts: 0,
            },
            last_ms: header.head.last_ms,
        })
    };
    match load() {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            let path = layout.sealed(segment.base());
            tracing::warn!(path = %path.display(), %error, "a queue index cannot be used; it is rebuilt from the log");
            None
        }
    }
}

/// The sealed index of a segment, if its header fits the log. Blocks.
pub fn open_valid(layout: &Layout, segment: &Segment) -> io::Result<(File, Header)> {
    let (file, header) = open_companion(&layout.sealed(segment.base()), segment.base())?;
    let head = &header.head;
    let whole = (segment.base(), segment.end());
    if head.kind != Kind::Sealed || (head.from, head.to) != whole || !fits_log(&header, segment)? {
        return Err(Damage::Misplaced.into());
    }
    Ok((file, header))
}

/// Loads the parts of a segment, as far as they are valid and follow each other.
fn load_parts(
    layout: &Layout,
    segment: &Segment,
    registry: &Registry,
    oldest: bool,
) -> io::Result<Option<Checkpoint>> {
    let mut chain: Vec<Part> = Vec::new();
    loop {
        let number = chain.len() as u32;
        let from = chain
            .last()
            .map_or(segment.base(), |part| part.header.head.to);
        match Part::open(layout, segment, number, from) {
            Ok(part) => chain.push(part),
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => {
                let path = layout.part(segment.base(), number);
                tracing::warn!(path = %path.display(), %error, "an index part cannot be used; the log behind it is read again");
                break;
            }
        }
    }
    let Some(last) = chain.last() else {
        return Ok(None);
    };
    let hot = segment.warm()?;
    hot.index.set_base_ms(last.header.head.base_ms);
    for (number, part) in chain.iter().enumerate() {
        part.fill(&hot, registry)?;
        if number == 0 {
            load_directory(&part.file, &part.header, registry, oldest)?;
        }
    }
    load_directory(&last.file, &last.header, registry, false)?;
    Ok(Some(Checkpoint {
        covered: Covered {
            to: last.header.head.to,
            segment_base: segment.base(),
            parts: chain.len() as u32,
        },
        last_ms: last.header.head.last_ms,
    }))
}

/// Sets the ends of all queues listed, and their starts if `starts`.
fn load_directory(
    file: &File,
    header: &Header,
    registry: &Registry,
    starts: bool,
) -> io::Result<()> {
    let directory = read_directory(file, header)?;
    header.directory(&directory, |listed| {
        let queue = registry.find_or_make(listed.topic, listed.id);
        let end = listed.first + u64::from(listed.entries);
        if end < queue.max_offset() {
            queue.start_at(listed.first); // It started anew behind what was loaded before.
        }
        queue.store_max(end);
        if starts {
            queue.raise_min(listed.first);
        }
    })?;
    Ok(())
}

/// A part whose every byte has been checked.
struct Part {
    file: File,
    header: Header,
    directory: Vec<u8>,
    blocks: Vec<u8>,
}

impl Part {
    fn open(layout: &Layout, segment: &Segment, number: u32, from: u64) -> io::Result<Part> {
        let path = layout.part(segment.base(), number);
        let (file, header) = open_companion(&path, segment.base())?;
        let head = &header.head;
        let in_place = head.kind == Kind::Part && head.from == from && head.to <= segment.end();
        if !in_place || !fits_log(&header, segment)? {
            return Err(Damage::Misplaced.into());
        }
        let directory = read_directory(&file, &header)?;
        let mut entries = 0;
        header.directory(&directory, |listed| entries += u64::from(listed.entries))?;
        if entries != header.entries {
            return Err(Damage::Directory.into());
        }
        let mut blocks = vec![0; (header.file_bytes() - header.blocks_at()) as usize];
        file.read_exact_at_blocking(&mut blocks, header.blocks_at())?;
        for (number, block) in (0..).zip(blocks.chunks_exact(BLOCK_BYTES)) {
            check_block(block, number)?;
        }
        Ok(Part {
            file,
            header,
            directory,
            blocks,
        })
    }

    /// Adds the entries to the segment's index in memory.
    fn fill(&self, hot: &Hot, registry: &Registry) -> io::Result<()> {
        let mut entries = (0..)
            .zip(self.blocks.chunks_exact(BLOCK_BYTES))
            .filter_map(|(number, block)| check_block(block, number).ok())
            .flatten()
            .map(Entry::decode);
        self.header.directory(&self.directory, |listed| {
            if listed.entries == 0 {
                return;
            }
            let no = registry.find_or_make(listed.topic, listed.id).no();
            let end = listed.first + u64::from(listed.entries);
            let before = hot.index.run(no).map(|run| run.first());
            if before.is_some_and(|first| first > listed.first || !follows(hot, no, listed.first)) {
                hot.index.forget(no); // The queue started anew behind the part before.
            }
            for (offset, entry) in (listed.first..end).zip(&mut entries) {
                hot.index.append(no, offset, entry);
            }
        })?;
        Ok(())
    }
}

/// Whether the queue's run in memory ends at `offset`.
fn follows(hot: &Hot, queue: QueueNo, offset: u64) -> bool {
    let run = hot.index.run(queue);
    let Some((run, last)) = run.zip(offset.checked_sub(1)) else {
        return false;
    };
    run.entry(last).is_some() && run.entry(offset).is_none()
}

/// Whether the segment is the one the companion was made for: its first record has the base's store time. A first record
/// that does not count tells nothing.
fn fits_log(header: &Header, segment: &Segment) -> io::Result<bool> {
    let head = &header.head;
    if head.segment_bytes != segment.bytes() {
        return Ok(false);
    }
    if head.to == segment.base() {
        return Ok(true); // It describes nothing yet.
    }
    let mut first = [0; record::RECORD_BYTES_MIN];
    segment.read_blocking(&mut first, 0)?;
    if first[..record::HEADER_BYTES] == [0; record::HEADER_BYTES] {
        return Ok(false);
    }
    match store_ms_of(&first, segment.base()) {
        Some(store_ms) if store_ms == head.base_ms => Ok(true),
        Some(_) => Ok(!first_counts(segment, &first)?),
        None => Ok(true),
    }
}

/// Whether the first record, which begins so, is one that indexes are made from.
fn first_counts(segment: &Segment, start: &[u8]) -> io::Result<bool> {
    let total = record::len_at(start).map_or(0, |header| header.total);
    if total as u64 > segment.bytes() {
        return Ok(false);
    }
    let mut bytes = vec![0; total];
    segment.read_blocking(&mut bytes, 0)?;
    let view = walk::check(&bytes, segment.base(), 0);
    Ok(view.and_then(|view| dispatch(&view).map(drop)).is_ok())
}

/// The store time of the record whose first bytes are given, if it claims to be at `log_offset`.
fn store_ms_of(start: &[u8; record::RECORD_BYTES_MIN], log_offset: u64) -> Option<i64> {
    record::len_at(start)
        .ok()
        .filter(|header| !header.is_blank())?;
    let field = |at: usize| start.get(at..)?.first_chunk::<8>().copied();
    if u64::from_be_bytes(field(record::LOG_OFFSET_AT)?) != log_offset {
        return None;
    }
    let sys_flag = i32::from_be_bytes(*start.get(record::SYS_FLAG_AT..)?.first_chunk()?);
    let host_bytes = match sys_flag & sysflag::BORN_HOST_V6 {
        0 => 4 + 4,
        _ => 16 + 4,
    };
    field(record::BORN_HOST_AT + host_bytes).map(i64::from_be_bytes)
}
