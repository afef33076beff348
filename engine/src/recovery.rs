//! From what is on disk to a store that can go on: read behind the checkpoint, cut at the first bad record.
//!
//! A record counts if it is whole, claims the place it is at, follows its queue, and its body matches its
//! checksum. At the first one that does not the log ends; what lies behind is zeroed before it is written over
//! (`ahead`), and later segments are removed. Missing or damaged indexes are made again from the log.

mod walk;

use crate::commit_log::{CommitLog, ReleaseAt};
use crate::config::Config;
use crate::dispatch::{Dispatched, dispatch};
use crate::layout::{Layout, parse_segment_name, segment_name};
use crate::queue::Registry;
use crate::queue_index::Entry;
use crate::queue_index::active::ActiveIndex;
use crate::queue_index::keeper::{Covered, write_rebuilt};
use crate::segment::Segment;
use crate::segments::Segments;
use crate::store::{OpenError, Store};
use crate::{LogOffset, checkpoint};
use reactor::{fs, offload};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use walk::{Step, Walk};

/// How far reading the log has come at opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub read_bytes: u64,
    /// At most so many; the log may end earlier.
    pub total_bytes: u64,
}

/// Where the writer goes on.
#[derive(Debug)]
pub struct Recovered {
    pub end: LogOffset,
    /// Store time of the last record.
    pub last_ms: i64,
    pub covered: Covered,
    /// The last segment was made just now: nothing stale can be in it.
    pub fresh_tail: bool,
}

/// Opens the log and finds its end. Nothing is accepted before this is done.
pub async fn recover(
    config: &Config,
    layout: &Layout,
    registry: &Registry,
    mut progress: impl FnMut(Progress),
) -> Result<(CommitLog, Recovered), OpenError> {
    let mut segments = open_segments(config, layout)?;
    let companions = layout.companions();
    let found =
        checkpoint::load(layout, &segments, registry).map_err(OpenError::io(&companions))?;
    let first = segments.first().map_or(0, |segment| segment.base());
    checkpoint::tidy(layout, &found.covered, first).map_err(OpenError::io(&companions))?;
    if let Some(oldest) = segments.first()
        && oldest.base() < found.covered.segment_base
        && let Err(error) = checkpoint::load_starts(layout, oldest, registry)
    {
        tracing::warn!(%error, "the start of the queues is not known; it is found when they are read");
    }
    let mut scan = Scan {
        registry,
        last_ms: found.last_ms,
        end: found.covered.to,
        read_bytes: 0,
        total_bytes: segments.last().map_or(0, |last| last.end()) - found.covered.to,
    };
    let mut kept = segments.len();
    for (number, segment) in segments.iter().enumerate() {
        if segment.end() <= found.covered.to {
            continue;
        }
        let path = || layout.segment(segment.base());
        let full = scan
            .segment(segment, &mut progress)
            .await
            .map_err(|source| OpenError::Io {
                path: path(),
                source,
            })?;
        if !full {
            kept = number + 1;
            break;
        }
    }
    // Newest first: whatever ends this in the middle leaves no hole.
    for beyond in segments.drain(kept..).rev() {
        remove_segment(layout, &beyond)?;
    }
    let fresh_tail = segments.last().is_none_or(|last| last.end() == scan.end);
    if fresh_tail {
        let (path, bytes) = (layout.segment(scan.end), config.segment_bytes);
        let next = Segment::create(layout, scan.end, bytes).map_err(OpenError::io(path))?;
        segments.push(Arc::new(next));
    }
    tracing::info!(
        first,
        end = scan.end,
        read_bytes = scan.read_bytes,
        queues = registry.len(),
        "the commit log is recovered"
    );
    let end = LogOffset(scan.end);
    let flushed = LogOffset(found.covered.to);
    let segments = Segments::new(config.segment_bytes, segments);
    let recovered = Recovered {
        end,
        last_ms: scan.last_ms,
        covered: found.covered,
        fresh_tail,
    };
    Ok((
        CommitLog::new(segments, end, flushed, ReleaseAt::of(config)),
        recovered,
    ))
}

/// All segments, oldest first, cold. Refuses by name what does not belong there. Blocks.
fn open_segments(config: &Config, layout: &Layout) -> Result<Vec<Arc<Segment>>, OpenError> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for dir in layout.log_dirs() {
        for name in fs::list(dir).map_err(OpenError::io(dir))? {
            let path = dir.join(&name);
            match parse_segment_name(&name) {
                Some(base) => found.push((base, path)),
                // Where the directory is a mount point of its own.
                None if name == "lost+found" => {}
                None => return Err(OpenError::ForeignFile { path }),
            }
        }
    }
    found.sort();
    let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(found.len());
    let expected = config.segment_bytes;
    let count = found.len();
    for (number, (base, path)) in found.into_iter().enumerate() {
        if let Some(previous) = segments.last() {
            if base < previous.end() {
                return Err(match base == previous.base() {
                    true => OpenError::DoubleSegment { path },
                    false => OpenError::ForeignFile { path },
                });
            }
            if base > previous.end() {
                let path = layout.segment(previous.end());
                return Err(OpenError::MissingSegment { path });
            }
        }
        let segment = Segment::open(&path, base, expected).map_err(OpenError::io(&path))?;
        let found = segment.file().len().map_err(OpenError::io(&path))?;
        if found == 0 && number + 1 == count {
            // A process died between making the file and giving it its size.
            fs::remove_file(&path).map_err(OpenError::io(&path))?;
            break;
        }
        if found != expected {
            return Err(OpenError::SegmentLength {
                path,
                found,
                expected,
            });
        }
        segments.push(Arc::new(segment));
    }
    Ok(segments)
}

/// A segment behind the end of the log: prepared ahead, or lost its connection in a power cut.
fn remove_segment(layout: &Layout, segment: &Segment) -> Result<(), OpenError> {
    // Not always where it would be made today: directories are added and change places.
    let name = segment_name(segment.base());
    for dir in layout.log_dirs() {
        let path = dir.join(&name);
        if fs::exists(&path) {
            tracing::info!(path = %path.display(), "removing a log file behind the end of the log");
            fs::remove_file(&path).map_err(OpenError::io(&path))?;
            fs::sync_dir(dir).map_err(OpenError::io(&path))?;
        }
    }
    Ok(())
}

/// Reads the log and fills the index, until it ends.
struct Scan<'a> {
    registry: &'a Registry,
    last_ms: i64,
    end: u64,
    read_bytes: u64,
    total_bytes: u64,
}

impl Scan<'_> {
    /// Reads one segment from where the scan is. Returns whether the log goes on in the next one.
    async fn segment(
        &mut self,
        segment: &Arc<Segment>,
        progress: &mut impl FnMut(Progress),
    ) -> io::Result<bool> {
        let hot = match segment.hot().as_ref() {
            Some(hot) => hot.clone(),
            None => segment.warm()?,
        };
        let from = self.end.max(segment.base()) - segment.base();
        let before = self.read_bytes;
        let mut walk = Walk::new(segment.clone(), from);
        loop {
            match walk.next().await? {
                Step::Record(record) => {
                    let added = record.view.and_then(|view| {
                        let dispatched = dispatch(&view)?;
                        self.add(
                            &hot.index,
                            record.position,
                            view.bytes.len(),
                            view.store_ms,
                            dispatched,
                        )
                    });
                    if let Err(why) = added {
                        return Ok(self.cut(segment, record.position, why));
                    }
                    self.end = segment.base() + walk.position();
                }
                Step::Full => {
                    self.end = segment.end();
                    return Ok(true);
                }
                Step::End(why) => {
                    let position = walk.position();
                    return Ok(self.cut(segment, position, why));
                }
            }
            let read_bytes = before + walk.position() - from;
            if read_bytes >> 20 != self.read_bytes >> 20 {
                progress(Progress {
                    read_bytes,
                    total_bytes: self.total_bytes,
                });
            }
            self.read_bytes = read_bytes;
        }
    }

    fn add(
        &mut self,
        index: &ActiveIndex,
        position: u64,
        bytes: usize,
        store_ms: i64,
        dispatched: Option<Dispatched<'_>>,
    ) -> Result<(), &'static str> {
        let store_ms = self.last_ms.max(store_ms);
        if position == 0 {
            index.set_base_ms(store_ms);
        }
        if let Some(to) = dispatched {
            let queue = match self.registry.find(to.topic, to.queue_id) {
                Some(queue) if queue.max_offset() != to.queue_offset => {
                    return Err("the record does not follow its queue");
                }
                Some(queue) => queue,
                None => {
                    let queue = self.registry.find_or_make(to.topic, to.queue_id);
                    queue.raise_min(to.queue_offset);
                    queue
                }
            };
            let entry = Entry {
                position: position as u32,
                bytes: bytes as u32,
                tag_hash: to.tag_hash,
                delta_ms: Entry::delta(index.base_ms(), store_ms),
            };
            index.append(queue.no(), to.queue_offset, entry);
            queue.store_max(to.queue_offset + 1);
        }
        self.last_ms = store_ms;
        Ok(())
    }

    /// The log ends here. Returns that it does not go on.
    fn cut(&mut self, segment: &Segment, position: u64, why: &'static str) -> bool {
        self.end = segment.base() + position;
        if why != walk::NOTHING_MORE {
            tracing::warn!(log_offset = self.end, why, "the commit log is cut here");
        }
        false
    }
}

/// Makes the sealed indexes that full segments lack.
pub async fn rebuild_missing(store: &Arc<Store>, layout: &Arc<Layout>) -> Result<(), OpenError> {
    let list = store.log().segments().load_full();
    for segment in list.items() {
        if segment.hot().is_some() {
            break; // From here on the keeper knows.
        }
        let (layout, checked) = (layout.clone(), segment.clone());
        let valid = offload("check a queue index", move || {
            checkpoint::open_valid(&layout, &checked).is_ok()
        })
        .await;
        if valid {
            continue;
        }
        if let Err(error) = rebuild_sealed(store, segment.clone()).await {
            tracing::error!(%error, segment = segment.base(), "the queue index of a log file cannot be made; its messages cannot be read");
        }
    }
    Ok(())
}

/// Reads a full segment and writes its sealed index.
pub async fn rebuild_sealed(store: &Arc<Store>, segment: Arc<Segment>) -> io::Result<()> {
    let index = ActiveIndex::new(segment.base());
    let mut next_offsets: Vec<Option<u64>> = Vec::new();
    let mut last_ms = i64::MIN;
    let mut walk = Walk::new(segment.clone(), 0);
    loop {
        let record = match walk.next().await? {
            Step::Record(record) => record,
            Step::Full => break,
            Step::End(why) => return Err(damaged(&segment, walk.position(), why)),
        };
        let at = |why| damaged(&segment, record.position, why);
        let view = record.view.map_err(at)?;
        last_ms = last_ms.max(view.store_ms);
        if record.position == 0 {
            index.set_base_ms(last_ms);
        }
        let Some(to) = dispatch(&view).map_err(at)? else {
            continue;
        };
        let queue = store.registry().find_or_make(to.topic, to.queue_id);
        let no = queue.no().0 as usize;
        if next_offsets.len() <= no {
            next_offsets.resize(no + 1, None);
        }
        if next_offsets[no].is_some_and(|next| next != to.queue_offset) {
            return Err(at("the record does not follow its queue"));
        }
        next_offsets[no] = Some(to.queue_offset + 1);
        let entry = Entry {
            position: record.position as u32,
            bytes: view.bytes.len() as u32,
            tag_hash: to.tag_hash,
            delta_ms: Entry::delta(index.base_ms(), last_ms),
        };
        index.append(queue.no(), to.queue_offset, entry);
    }
    let before = previous_sealed(store, &segment).await;
    let (store, base) = (store.clone(), segment.base());
    offload("write a queue index", move || {
        write_rebuilt(
            &store,
            &segment,
            &index,
            &next_offsets,
            before.as_deref(),
            last_ms,
        )
    })
    .await?;
    tracing::info!(segment = base, "a queue index was rebuilt from the log");
    Ok(())
}

/// The sealed index before this segment: it knows where the queues without messages here stand.
async fn previous_sealed(
    store: &Arc<Store>,
    segment: &Segment,
) -> Option<Arc<crate::queue_index::sealed::Sealed>> {
    let before = segment.base().checked_sub(segment.bytes())?;
    if before < store.first().0 {
        return None;
    }
    store.sealed().get(before).await.ok()
}

fn damaged(segment: &Segment, position: u64, why: &str) -> io::Error {
    let at = segment.base() + position;
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the log is damaged at {at}: {why}"),
    )
}
