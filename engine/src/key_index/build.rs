//! Making the key index of one segment: the log is read in stretches, entries gather in memory, go out as runs, and become
//! one file when the segment is full.
//!
//! The task of the writer's core that owns this decides and reads; parsing, sorting and merging happen beside the cores,
//! a few milliseconds at a time. A run is written only after the log it covers is synced.

use super::collect::{Times, collect};
use super::entry::Entry;
use super::file::{BLOCKS_AT, Encoder, Head, KeyFile, header_block};
use super::merge::{Merge, Needs};
use super::names::{self, Name};
use super::retired::Retired;
use super::stretch::{STRETCH_BYTES, Stretch};
use super::view::{Memory, Part};
use crate::LogOffset;
use crate::flush::Flusher;
use crate::layout::Layout;
use crate::queue_index::companion::{give_name, unfinished};
use crate::queue_index::part::Damage;
use crate::segment::Segment;
use crate::store::Store;
use reactor::{Buffer, File, OpenOptions, fs, offload, offload_bulk};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Entries in memory that go out as a run: 4 MiB.
const RUN_ENTRIES: usize = 256 << 10;
/// So many runs become one, whether the segment is full or not.
const RUNS_MAX: usize = 64;
/// Blocks of a run that are read at once while runs are merged.
const MERGE_READ_BLOCKS: u64 = 16;
/// Merged bytes that are written at once.
const MERGE_WRITE_BYTES: usize = 1 << 20;
/// And handed to the kernel at once.
const WRITE_BYTES: usize = 256 << 10;
/// A spare that was for a longer record is not kept.
const SPARE_BYTES_MAX: u64 = STRETCH_BYTES + (8 << 10);

/// The index of one segment, as far as it has come.
pub struct Build {
    segment: Arc<Segment>,
    times: Times,
    /// Position in the segment up to which the log has been read.
    read_to: u64,
    /// Length of the record there, if it does not fit into a stretch.
    next_bytes: u64,
    /// Cover the segment from its start without a gap.
    runs: Vec<Run>,
    /// What was read behind them, oldest first.
    memory: Vec<Arc<Memory>>,
    next_number: u32,
    /// What stretches are read into, again and again: new memory costs a page fault for each page of it.
    spare: Option<Buffer>,
}

struct Run {
    path: PathBuf,
    file: Arc<KeyFile>,
}

/// Where things are, for all that is built.
#[derive(Clone)]
pub(crate) struct Place {
    pub store: Arc<Store>,
    pub flusher: std::rc::Rc<Flusher>,
    pub retired: std::rc::Rc<Retired<KeyFile>>,
}

impl Build {
    pub fn new(segment: Arc<Segment>) -> Build {
        Build {
            segment,
            times: Times::NONE,
            read_to: 0,
            next_bytes: 0,
            runs: Vec::new(),
            memory: Vec::new(),
            next_number: 0,
            spare: None,
        }
    }

    /// Goes on where the runs on disk end; `end` is the end of the log. Runs that do not fit are removed. Blocks.
    pub fn resume(layout: &Layout, segment: Arc<Segment>, end: u64) -> io::Result<Build> {
        let mut build = Build::new(segment);
        let base = build.segment.base();
        let mut found: Vec<(PathBuf, KeyFile)> = Vec::new();
        for (path, number) in names::runs_of(layout, base)? {
            build.next_number = build.next_number.max(number + 1);
            match KeyFile::open(&path, base, build.segment.bytes()) {
                Ok(file) => found.push((path, file)),
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "a run of the key index is removed");
                    fs::remove_file(&path)?;
                }
            }
        }
        // Of those that start in one place the longest: the others were merged into it.
        found.sort_by_key(|(_, file)| (file.head.from, u64::MAX - file.head.to));
        for (path, file) in found {
            let head = file.head;
            let follows = head.from == base + build.read_to && head.from < head.to;
            let same_log = build.times.base_ms.is_none_or(|ms| ms == head.base_ms);
            if !follows || !same_log || head.to > end {
                fs::remove_file(&path)?;
                continue;
            }
            build.read_to = head.to - base;
            build.times = Times {
                base_ms: Some(head.base_ms),
                last_ms: head.last_ms,
            };
            let file = Arc::new(file);
            build.runs.push(Run { path, file });
        }
        Ok(build)
    }

    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Log offset below which everything is in the parts.
    pub fn read_to(&self) -> u64 {
        self.segment.base() + self.read_to
    }

    pub fn is_full(&self) -> bool {
        self.read_to == self.segment.bytes()
    }

    pub fn last_ms(&self) -> i64 {
        self.times.last_ms
    }

    /// What can be searched, oldest first.
    pub fn parts(&self) -> Vec<Part> {
        let runs = self.runs.iter().map(|run| Part::Run(run.file.clone()));
        let memory = self
            .memory
            .iter()
            .map(|memory| Part::Memory(memory.clone()));
        runs.chain(memory).collect()
    }

    /// Forgets everything, on disk as well.
    pub(crate) async fn start_over(&mut self, place: &Place) {
        let segment = self.segment.clone();
        let next_number = self.next_number;
        let old = std::mem::replace(self, Build::new(segment));
        self.next_number = next_number;
        remove_runs(old.runs, &place.retired).await;
    }

    /// Reads the next stretch below `end`, a log offset. Says whether there was one.
    pub async fn step(&mut self, store: &Arc<Store>, end: u64) -> io::Result<bool> {
        let (base, from) = (self.segment.base(), self.read_to);
        let end = end.min(self.segment.end()) - base;
        if from >= end {
            return Ok(false);
        }
        let to = end.min(from + STRETCH_BYTES.max(self.next_bytes));
        let spare = self.spare.take();
        let mut stretch = Stretch::read(store, &self.segment, from, to, spare).await?;
        let to = from + stretch.len();
        let (times, segment_end) = (self.times, self.segment.end());
        let (collected, spare) = offload_bulk("collect keys", move || {
            let bytes = stretch.load();
            let collected = bytes.map(|bytes| collect(bytes, base..segment_end, from, times));
            (collected, stretch.into_spare())
        })
        .await;
        self.spare = spare.filter(|spare| spare.capacity() as u64 <= SPARE_BYTES_MAX);
        let Some(collected) = collected else {
            return Ok(true);
        };
        self.next_bytes = collected.next_bytes as u64;
        if collected.consumed == 0 {
            if self.next_bytes <= to - from || to == end {
                return Err(Damage::Short.into());
            }
            return Ok(true);
        }
        self.times = collected.times;
        self.read_to = from + collected.consumed;
        self.memory.push(Arc::new(Memory {
            from: base + from,
            to: base + self.read_to,
            base_ms: collected.times.base_ms.unwrap_or(0),
            first_ms: collected.first_ms,
            last_ms: collected.times.last_ms,
            entries: collected.entries,
        }));
        Ok(true)
    }

    /// Writes a run if there is enough for one.
    pub(crate) async fn spill_if_due(&mut self, place: &Place) -> io::Result<()> {
        let entries: usize = self.memory.iter().map(|memory| memory.entries.len()).sum();
        let Some(oldest) = self.memory.first() else {
            return Ok(());
        };
        let log_bytes = self.read_to() - oldest.from;
        if entries >= RUN_ENTRIES || log_bytes >= place.store.config().part_bytes {
            self.spill(place).await?;
        }
        if self.runs.len() >= RUNS_MAX {
            let path = self.next_path(place.store.layout());
            self.merge_into(place, path, &|| false).await?;
        }
        Ok(())
    }

    /// Writes everything that is in memory as a run.
    pub(crate) async fn spill(&mut self, place: &Place) -> io::Result<()> {
        let (Some(first), Some(last)) = (self.memory.first(), self.memory.last()) else {
            return Ok(());
        };
        let mut head = Head {
            segment_base: self.segment.base(),
            segment_bytes: self.segment.bytes(),
            from: first.from,
            to: last.to,
            base_ms: first.base_ms,
            first_ms: first.first_ms,
            last_ms: last.last_ms,
            entries: 0,
        };
        place.flusher.sync_to(LogOffset(head.to)).await?;
        let memory = self.memory.clone();
        let (blocks, entries) = offload_bulk("sort keys", move || {
            let mut out = Encoder::default();
            sorted(&memory)
                .into_iter()
                .for_each(|entry| out.push(entry));
            let entries = out.finish();
            (out.take(), entries)
        })
        .await;
        head.entries = entries;
        let path = self.next_path(place.store.layout());
        let writing = Writing::start(&path).await?;
        writing.write(&blocks, BLOCKS_AT).await?;
        let file = Arc::new(writing.finish(head).await?);
        self.runs.push(Run { path, file });
        self.next_number += 1;
        self.memory.clear();
        Ok(())
    }

    /// Makes the full segment's file; `stop` is asked now and then. Says whether it is there.
    pub(crate) async fn seal(
        &mut self,
        place: &Place,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<bool> {
        assert!(self.is_full(), "only a full segment is sealed");
        self.spill(place).await?;
        let path = names::sealed(place.store.layout(), self.segment.base());
        if let [only] = self.runs.as_slice() {
            let (from, to) = (only.path.clone(), path);
            offload("name a key index", move || {
                fs::rename(&from, &to)?;
                fs::sync_dir(to.parent().expect("a companion is in a directory"))
            })
            .await?;
            return Ok(true);
        }
        self.merge_into(place, path, stop).await
    }

    /// Makes one file of all runs and removes them.
    async fn merge_into(
        &mut self,
        place: &Place,
        path: PathBuf,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<bool> {
        let (first, last) = match self.runs.as_slice() {
            [first, .., last] => (first.file.head, last.file.head),
            _ => return Ok(false),
        };
        let head = Head {
            to: last.to,
            last_ms: last.last_ms,
            entries: self.runs.iter().map(|run| run.file.head.entries).sum(),
            ..first
        };
        let writing = Writing::start(&path).await?;
        let mut merge = Merge::new(self.runs.len());
        let mut next_blocks = vec![0; self.runs.len()];
        let mut at = BLOCKS_AT;
        loop {
            if stop() {
                return Ok(false);
            }
            let (needs, back) = offload_bulk("merge keys", move || {
                let needs = merge.step(MERGE_WRITE_BYTES);
                (needs, merge)
            })
            .await;
            merge = back;
            match needs {
                Needs::Input(number) => {
                    let next = &mut next_blocks[number];
                    let run = &self.runs[number].file;
                    merge.feed(number, run.entries(*next, MERGE_READ_BLOCKS).await?);
                    *next += MERGE_READ_BLOCKS;
                    continue;
                }
                Needs::Output => {}
                Needs::Nothing => {
                    let entries = merge.out().finish();
                    assert_eq!(entries, head.entries, "nothing is lost between runs");
                }
            }
            let blocks = merge.out().take();
            let len = blocks.len() as u64;
            writing.write(&blocks, at).await?;
            at += len;
            if needs == Needs::Nothing {
                break;
            }
        }
        assert_eq!(at, head.file_bytes(), "every block was written");
        let file = Arc::new(writing.finish(head).await?);
        let merged = std::mem::replace(&mut self.runs, vec![Run { path, file }]);
        self.next_number += 1;
        remove_runs(merged, &place.retired).await;
        Ok(true)
    }

    fn next_path(&self, layout: &Layout) -> PathBuf {
        let base = self.segment.base();
        names::path(
            layout,
            Name::Run {
                base,
                number: self.next_number,
            },
        )
    }
}

/// All entries, those of one hash newest first.
fn sorted(memory: &[Arc<Memory>]) -> Vec<Entry> {
    let count = memory.iter().map(|memory| memory.entries.len()).sum();
    let mut all = Vec::with_capacity(count);
    for memory in memory {
        all.extend_from_slice(&memory.entries);
    }
    // Finds what is sorted already.
    all.sort();
    all
}

/// A file that gets its name when it is complete and synced.
struct Writing {
    file: File,
    path: PathBuf,
}

impl Writing {
    async fn start(path: &std::path::Path) -> io::Result<Writing> {
        let path = path.to_path_buf();
        let new = unfinished(&path);
        let options = OpenOptions {
            read: true,
            write: true,
            create: true,
            truncate: true,
            ..OpenOptions::default()
        };
        let file = offload("begin a key index", move || File::open(&new, options)).await?;
        Ok(Writing { file, path })
    }

    /// In pieces: the kernel copies each of them while the core waits.
    async fn write(&self, blocks: &[u8], at: u64) -> io::Result<()> {
        let mut piece = Buffer::with_capacity(WRITE_BYTES);
        for (bytes, at) in blocks.chunks(WRITE_BYTES).zip((at..).step_by(WRITE_BYTES)) {
            piece.set_len(bytes.len());
            piece.copy_from_slice(bytes);
            let (written, back) = self.file.write_at(piece, at).await;
            written?;
            piece = back;
        }
        Ok(())
    }

    async fn finish(self, head: Head) -> io::Result<KeyFile> {
        let Writing { file, path } = self;
        let (written, _) = file.write_at(header_block(&head), 0).await;
        written?;
        file.sync_data().await?;
        offload("name a key index", move || {
            give_name(&path)?;
            KeyFile::of(file, head)
        })
        .await
    }
}

async fn remove_runs(runs: Vec<Run>, retired: &Retired<KeyFile>) {
    let (paths, files): (Vec<PathBuf>, Vec<_>) =
        runs.into_iter().map(|run| (run.path, run.file)).unzip();
    retired.add(files);
    offload("remove key runs", move || {
        for path in paths {
            // A leftover is removed when the store opens.
            drop(fs::remove_file(&path));
        }
    })
    .await;
}
