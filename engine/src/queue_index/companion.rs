//! Writing a companion: from the index in memory, or from a segment that was read again.
//!
//! It is written under another name, synced, and then renamed, so that a companion is whole or not there.

use super::Entry;
use super::active::Run;
use super::part::{self, Head, Kind, Listed};
use crate::layout::UNFINISHED_SUFFIX;
use crate::queue::{Queue, Registry};
use crate::segment::{Hot, Segment};
use protocol::record::View;
use reactor::{File, OpenOptions, fs, offload, offload_bulk};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Writes the companion of the log offsets `range` of a hot segment, synced and named. `newer` are the segments
/// behind it, asked for when the queues' ends are known. The log it describes is synced already.
pub async fn write_hot(
    registry: Arc<Registry>,
    newer: impl FnOnce() -> Vec<Arc<Segment>> + Send + 'static,
    segment: Arc<Segment>,
    range: Range<u64>,
    kind: Kind,
    path: PathBuf,
) -> io::Result<()> {
    let unfinished = unfinished(&path);
    let file = offload_bulk("write a queue index", move || {
        encode_hot(&registry, newer, &segment, range, kind, &unfinished)
    })
    .await?;
    // Not on the other thread: the tail's pages need it.
    file.sync_data().await?;
    offload("name a queue index", move || give_name(&path)).await
}

fn encode_hot(
    registry: &Registry,
    newer: impl FnOnce() -> Vec<Arc<Segment>>,
    segment: &Segment,
    range: Range<u64>,
    kind: Kind,
    unfinished: &Path,
) -> io::Result<File> {
    let hot = segment.hot().as_ref().cloned();
    let hot = hot.ok_or_else(|| io::Error::other("the segment's index has left memory"))?;
    let queues = registry.sorted();
    // The ends first: whatever was counted in them is in a segment and its index by now.
    let ends: Vec<u64> = queues.iter().map(|queue| queue.max_offset()).collect();
    let newer = newer();
    let rows: Vec<Row<'_>> = queues
        .iter()
        .zip(ends)
        .map(|(queue, end)| Row::of(&newer, segment, &hot, queue, end, &range))
        .collect();
    let listed: Vec<Listed<'_>> = rows.iter().map(|row| row.listed).collect();
    let head = Head {
        kind,
        segment_base: segment.base(),
        segment_bytes: segment.bytes(),
        from: range.start,
        to: range.end,
        base_ms: hot.index.base_ms(),
        last_ms: last_ms(&hot, segment, &rows),
    };
    let entry = |row: usize, n: u32| rows[row].entry(n);
    write_file(unfinished, |out| part::encode(&head, &listed, entry, out))
}

/// The name a companion has until it is complete and synced.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED_SUFFIX);
    PathBuf::from(name)
}

/// Writes a new file from its start. Blocks.
fn write_file(
    path: &Path,
    write: impl FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>,
) -> io::Result<File> {
    let options = OpenOptions {
        read: true,
        write: true,
        create: true,
        truncate: true,
        ..OpenOptions::default()
    };
    let file = File::open(path, options)?;
    let mut at = 0;
    write(&mut |piece| {
        file.write_all_at_blocking(piece, at)?;
        at += piece.len() as u64;
        Ok(())
    })?;
    Ok(file)
}

/// Gives a complete, synced companion its name, durably. Blocks.
pub(crate) fn give_name(path: &Path) -> io::Result<()> {
    fs::rename(&unfinished(path), path)?;
    fs::sync_dir(path.parent().expect("a companion is in a directory"))
}

/// One queue's part of a companion.
struct Row<'a> {
    listed: Listed<'a>,
    run: Option<&'a Run>,
}

impl<'a> Row<'a> {
    fn of(
        newer: &[Arc<Segment>],
        segment: &Segment,
        hot: &'a Hot,
        queue: &'a Queue,
        max: u64,
        range: &Range<u64>,
    ) -> Row<'a> {
        let mut row = Row {
            listed: Listed {
                topic: queue.topic(),
                id: queue.id(),
                first: max,
                entries: 0,
            },
            run: hot.index.run(queue.no()),
        };
        match row.run {
            Some(run) => {
                let earlier = run.count_below(range.start - segment.base(), max);
                let all = run.count_below(range.end - segment.base(), max);
                row.listed.first = run.first() + u64::from(earlier);
                row.listed.entries = all - earlier;
            }
            None => {
                if let Some(first) = first_in_newer(newer, queue) {
                    row.listed.first = first;
                }
            }
        }
        row
    }

    fn entry(&self, n: u32) -> Entry {
        let run = self.run.expect("a row with entries has a run");
        run.entry(self.listed.first + u64::from(n))
            .expect("counted before, and entries stay")
    }
}

/// Where the queue goes on in the newer segments, if it does.
fn first_in_newer(newer: &[Arc<Segment>], queue: &Queue) -> Option<u64> {
    newer.iter().find_map(|newer| {
        let hot = newer.hot();
        let run = hot.as_ref()?.index.run(queue.no())?;
        Some(run.first())
    })
}

/// Store time of the last record that the rows describe.
fn last_ms(hot: &Hot, segment: &Segment, rows: &[Row<'_>]) -> i64 {
    let last = rows
        .iter()
        .filter(|row| row.listed.entries > 0)
        .map(|row| row.entry(row.listed.entries - 1))
        .max_by_key(|entry| entry.position);
    let Some(last) = last else {
        return hot.index.base_ms();
    };
    let place = hot.index.place(last);
    place.store_ms.unwrap_or_else(|| {
        let mut record = vec![0; place.bytes as usize];
        let at = place.log_offset.0 - segment.base();
        segment
            .read_blocking(&mut record, at)
            .ok()
            .and_then(|()| View::parse(&record).ok())
            .map_or(hot.index.base_ms(), |view| view.store_ms)
    })
}

/// A queue's line in a sealed index that is written from a segment read again.
pub struct Rebuilt<'a> {
    pub listed: Listed<'a>,
    /// Where the entries are; `None` without any.
    pub run: Option<&'a Run>,
}

/// Writes the sealed index of a segment that was read again, synced and named. Rows are sorted by topic and id. Blocks.
pub fn write_rebuilt(
    path: &Path,
    segment: Range<u64>,
    base_ms: i64,
    last_ms: i64,
    rows: &[Rebuilt<'_>],
) -> io::Result<()> {
    let listed: Vec<Listed<'_>> = rows.iter().map(|row| row.listed).collect();
    let head = Head {
        kind: Kind::Sealed,
        segment_base: segment.start,
        segment_bytes: segment.end - segment.start,
        from: segment.start,
        to: segment.end,
        base_ms,
        last_ms,
    };
    let entry = |row: usize, n: u32| {
        let row = &rows[row];
        row.run
            .and_then(|run| run.entry(row.listed.first + u64::from(n)))
            .expect("counted while reading the log")
    };
    let file = write_file(&unfinished(path), |out| {
        part::encode(&head, &listed, entry, out)
    })?;
    file.sync_blocking()?;
    give_name(path)
}
