//! Keeps the index on disk: spills parts of the growing segment, seals full ones, gives their memory back.
//!
//! A task of the writer's core that decides; the work is done by another thread, which reads the index in memory
//! beside the writer. A companion is written only after the log it describes is synced, so that what it says is
//! true after a power cut as well. Nothing here can fail a send: what could not be written is tried again later,
//! and until then a restart reads more of the log.

use super::active::{ActiveIndex, Run};
use super::part::{self, Head, Kind, Listed};
use super::sealed::Sealed;
use crate::LogOffset;
use crate::flush::Flusher;
use crate::layout::{Layout, UNFINISHED_SUFFIX};
use crate::queue::Queue;
use crate::segment::{Hot, Segment};
use crate::store::Store;
use protocol::record::View;
use reactor::{File, Notify, OpenOptions, fs, offload};
use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long after a failed attempt a companion is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How far the companions describe the log.
#[derive(Clone, Debug)]
pub struct Covered {
    /// Log offset below which companions have every entry.
    pub to: u64,
    /// First offset of the segment the next part belongs to.
    pub segment_base: u64,
    /// How many parts that segment has.
    pub parts: u32,
}

/// The writer's core only.
pub(crate) struct Keeper {
    store: Arc<Store>,
    layout: Arc<Layout>,
    flusher: Rc<Flusher>,
    covered: RefCell<Covered>,
    wake: Notify,
}

enum Job {
    Spill { segment: Arc<Segment>, to: u64 },
    Seal { segment: Arc<Segment> },
    None,
}

impl Keeper {
    pub fn new(
        store: Arc<Store>,
        layout: Arc<Layout>,
        flusher: Rc<Flusher>,
        covered: Covered,
    ) -> Keeper {
        Keeper {
            store,
            layout,
            flusher,
            covered: RefCell::new(covered),
            wake: Notify::new(),
        }
    }

    /// Called by the writer after a publish: wakes the task if a part or a seal is due.
    pub fn look(&self) {
        let covered = self.covered.borrow();
        let released = self.store.log().released().0;
        let behind = released - covered.to;
        let full = covered.segment_base + self.store.config().segment_bytes;
        if behind >= self.store.config().part_bytes || released >= full {
            self.wake.notify();
        }
    }

    /// The task.
    pub async fn run(self: Rc<Keeper>) {
        loop {
            match self.step(self.store.config().part_bytes).await {
                Ok(true) => {}
                Ok(false) => self.wake.notified().await,
                Err(_) if self.store.log().is_poisoned() => return,
                Err(error) => {
                    tracing::warn!(%error, "writing the queue index failed; it is tried again");
                    reactor::sleep(RETRY).await;
                }
            }
            self.retire_cold().await;
        }
    }

    /// Brings the companions up to the end of the log, so that the next start has nothing to read.
    pub async fn finish(&self) {
        loop {
            match self.step(1).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "writing the queue index failed; the next start reads the log instead");
                    return;
                }
            }
        }
    }

    /// Does the oldest thing there is to do; says whether there was one.
    async fn step(&self, part_bytes: u64) -> io::Result<bool> {
        let (job, from, number) = {
            let covered = self.covered.borrow();
            (self.job(&covered, part_bytes), covered.to, covered.parts)
        };
        match job {
            Job::None => return Ok(false),
            Job::Spill { segment, to } => {
                self.flusher.sync_to(LogOffset(to)).await?;
                let path = self.layout.part(segment.base(), number);
                self.write(segment, from, to, Kind::Part, path).await?;
                let mut covered = self.covered.borrow_mut();
                covered.to = to;
                covered.parts = number + 1;
            }
            Job::Seal { segment } => {
                let (base, end) = (segment.base(), segment.end());
                self.flusher.sync_to(LogOffset(end)).await?;
                let path = self.layout.sealed(base);
                self.write(segment, base, end, Kind::Sealed, path).await?;
                let parts: Vec<PathBuf> = (0..number)
                    .map(|part| self.layout.part(base, part))
                    .collect();
                offload("remove index parts", move || {
                    // A leftover is removed when the store opens.
                    parts.iter().for_each(|part| drop(fs::remove_file(part)));
                })
                .await;
                *self.covered.borrow_mut() = Covered {
                    to: end,
                    segment_base: end,
                    parts: 0,
                };
            }
        }
        Ok(true)
    }

    fn job(&self, covered: &Covered, part_bytes: u64) -> Job {
        // Not `written`: the queues' ends, which entries are counted by, follow what is released.
        let released = self.store.log().released().0;
        let list = self.store.log().segments().load();
        let Some((_, segment)) = list.containing(covered.segment_base) else {
            return Job::None;
        };
        if segment.end() <= released {
            let segment = segment.clone();
            return Job::Seal { segment };
        }
        if released - covered.to >= part_bytes {
            let segment = segment.clone();
            return Job::Spill {
                segment,
                to: released,
            };
        }
        Job::None
    }

    async fn write(
        &self,
        segment: Arc<Segment>,
        from: u64,
        to: u64,
        kind: Kind,
        path: PathBuf,
    ) -> io::Result<()> {
        let store = self.store.clone();
        let unfinished = unfinished(&path);
        let file = offload("write a queue index", move || {
            write_companion(&store, &segment, from, to, kind, &unfinished)
        })
        .await?;
        // Not on the other thread: the tail's pages need it.
        file.sync_data().await?;
        offload("name a queue index", move || give_name(&path)).await
    }

    /// Gives back the memory of sealed segments that have left the hot tail.
    async fn retire_cold(&self) {
        let written = self.store.log().written().0;
        let hot_from = written.saturating_sub(self.store.config().hot_bytes);
        let cold_to = hot_from.min(self.covered.borrow().segment_base);
        let list = self.store.log().segments().load_full();
        let cold = list
            .items()
            .iter()
            .take_while(|segment| segment.end() <= cold_to);
        let retired: Vec<_> = cold.filter_map(|segment| segment.retire()).collect();
        if !retired.is_empty() {
            // Unmapping a gigabyte takes a while.
            offload("unmap cold log segments", move || drop(retired)).await;
        }
    }
}

/// Writes the companion of `from..to` of a hot segment. Blocks.
fn write_companion(
    store: &Store,
    segment: &Segment,
    from: u64,
    to: u64,
    kind: Kind,
    unfinished: &Path,
) -> io::Result<File> {
    let hot = segment.hot().as_ref().cloned();
    let hot = hot.ok_or_else(|| io::Error::other("the segment's index has left memory"))?;
    let queues = store.registry().sorted();
    let rows: Vec<Row<'_>> = queues
        .iter()
        .map(|queue| Row::of(store, segment, &hot, queue, from, to))
        .collect();
    let listed: Vec<Listed<'_>> = rows.iter().map(|row| row.listed).collect();
    let head = Head {
        kind,
        segment_base: segment.base(),
        segment_bytes: segment.bytes(),
        from,
        to,
        base_ms: hot.index.base_ms(),
        last_ms: last_ms(&hot, segment, &rows),
    };
    let entry = |row: usize, n: u32| rows[row].entry(n);
    write_file(unfinished, |out| part::encode(&head, &listed, entry, out))
}

/// The name a companion has until it is complete and synced.
fn unfinished(path: &Path) -> PathBuf {
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
fn give_name(path: &Path) -> io::Result<()> {
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
        store: &Store,
        segment: &Segment,
        hot: &'a Hot,
        queue: &'a Queue,
        from: u64,
        to: u64,
    ) -> Row<'a> {
        // The end first: whatever was counted in it is in an index by now.
        let max = queue.max_offset();
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
                let earlier = run.count_below(from - segment.base(), max);
                let all = run.count_below(to - segment.base(), max);
                row.listed.first = run.first() + u64::from(earlier);
                row.listed.entries = all - earlier;
            }
            None => {
                if let Some(first) = first_in_newer(store, segment, queue) {
                    row.listed.first = first;
                }
            }
        }
        row
    }

    fn entry(&self, n: u32) -> super::Entry {
        let run = self.run.expect("a row with entries has a run");
        run.entry(self.listed.first + u64::from(n))
            .expect("counted before, and entries stay")
    }
}

/// Where the queue goes on in the segments after `segment`, if it does.
fn first_in_newer(store: &Store, segment: &Segment, queue: &Queue) -> Option<u64> {
    let list = store.log().segments().load();
    let (number, _) = list.containing(segment.base())?;
    list.items()[number + 1..].iter().find_map(|newer| {
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
        let at = (place.log_offset.0 - segment.base()) as usize;
        // SAFETY: an entry below the queue's published end: its record is complete and never changes.
        let record = unsafe { hot.mapping.bytes(at, place.bytes as usize) };
        View::parse(record).map_or(hot.index.base_ms(), |view| view.store_ms)
    })
}

/// Writes the sealed index of a segment that was read again. Blocks. `next_offsets` has, by queue number, where
/// the queues with messages in the segment go on; the others stand where `before` says.
pub(crate) fn write_rebuilt(
    store: &Store,
    segment: &Segment,
    index: &ActiveIndex,
    next_offsets: &[Option<u64>],
    before: Option<&Sealed>,
    last_ms: i64,
) -> io::Result<()> {
    let queues = store.registry().sorted();
    let mut rows: Vec<(Listed<'_>, Option<&Run>)> = Vec::with_capacity(queues.len());
    for queue in &queues {
        let (topic, id) = (queue.topic(), queue.id());
        let next = next_offsets.get(queue.no().0 as usize).copied().flatten();
        if let (Some(run), Some(next)) = (index.run(queue.no()), next) {
            let (first, entries) = (run.first(), (next - run.first()) as u32);
            let listed = Listed {
                topic,
                id,
                first,
                entries,
            };
            rows.push((listed, Some(run)));
        } else if let Some(stands) = before.and_then(|before| before.run(queue.no())) {
            let (first, entries) = (stands.next(), 0);
            rows.push((
                Listed {
                    topic,
                    id,
                    first,
                    entries,
                },
                None,
            ));
        }
    }
    let listed: Vec<Listed<'_>> = rows.iter().map(|(listed, _)| *listed).collect();
    let head = Head {
        kind: Kind::Sealed,
        segment_base: segment.base(),
        segment_bytes: segment.bytes(),
        from: segment.base(),
        to: segment.end(),
        base_ms: index.base_ms(),
        last_ms,
    };
    let entry = |row: usize, n: u32| {
        let (listed, run) = &rows[row];
        run.and_then(|run| run.entry(listed.first + u64::from(n)))
            .expect("counted while reading the log")
    };
    let path = store.layout().sealed(segment.base());
    let file = write_file(&unfinished(&path), |out| {
        part::encode(&head, &listed, entry, out)
    })?;
    file.sync_blocking()?;
    give_name(&path)
}
