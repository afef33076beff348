//! From what is on disk to a store that can go on: read behind the checkpoint, cut at the first bad record.
//!
//! A record counts if it is whole, claims the place it is at, follows its queue, and its body matches its
//! checksum. At the first one that does not the log ends; what lies behind is zeroed before it is written over
//! (`ahead`), and later segments are removed. Missing or damaged indexes are made again from the log, those of old
//! segments beside the open store. Logs of RocketMQ are read by RocketMQ's rules (`indexing`), up to where we go on.

mod damage;
pub mod files;
pub mod indexing;
mod rebuild;
mod scan;
pub mod unsynced;
pub mod walk;
pub mod window;

use crate::commit_log::{CommitLog, ReleaseAt};
use crate::config::Config;
use crate::layout::{Layout, segment_name};
use crate::queue::Registry;
use crate::queue_index::companion::write_hot;
use crate::queue_index::keeper::Covered;
use crate::queue_index::part::Kind;
use crate::segment::{Medium, Segment};
use crate::segments::Segments;
use crate::store::{OpenError, Store};
use crate::{LogOffset, checkpoint};
use files::{Files, Problem};
use reactor::fs;
pub use rebuild::{rebuild_missing, rebuild_sealed};
use scan::Scan;
use std::io;
use std::path::Path;
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
    /// Where reading began: the checkpoint's end, between two records.
    pub read_from: LogOffset,
    /// How much log was read to find its end.
    pub read_bytes: u64,
    /// RocketMQ had the store since we last did.
    pub rocketmqs: bool,
    /// Up to here RocketMQ's rules hold.
    pub rocketmqs_until: LogOffset,
    /// The first offset of every queue was found.
    pub starts_known: bool,
}

/// Opens the log and finds its end. Nothing is accepted before this is done.
pub async fn recover(
    config: &Config,
    layout: &Layout,
    registry: &Arc<Registry>,
    medium: &Medium,
    mut progress: impl FnMut(Progress),
) -> Result<(CommitLog, Recovered), OpenError> {
    let files = find_files(config, layout)?;
    let rocketmqs = files::is_rocketmqs(layout, &files.files);
    let rocketmqs_until = files::rocketmqs_until(layout, &files.files);
    let mut segments = open_segments(config, files, medium)?;
    let companions = layout.companions();
    let found =
        checkpoint::load(layout, &segments, registry).map_err(OpenError::io(&companions))?;
    let first = segments.first().map_or(0, |segment| segment.base());
    checkpoint::tidy(layout, &found.covered, first).map_err(OpenError::io(&companions))?;
    let mut starts_known = true;
    if let Some(oldest) = segments.first()
        && oldest.base() < found.covered.segment_base
        && let Err(error) = checkpoint::load_starts(layout, oldest, registry)
    {
        tracing::warn!(%error, "the start of the queues is not known; it is found when they are read");
        starts_known = false;
    }
    let damaged = damage::known(layout, first).map_err(OpenError::io(layout.damaged()))?;
    let gaps_until = damaged.iter().map(|damage| damage.until).max();
    let flushed = LogOffset(found.covered.to);
    let log_end = segments.last().map_or(found.covered.to, |last| last.end());
    let mut scan = Scan::new(
        registry,
        layout,
        rocketmqs_until,
        gaps_until.unwrap_or(0),
        found.covered,
        found.last_ms,
        log_end,
    );
    let mut kept = segments.len();
    let mut number = segments.partition_point(|segment| segment.end() <= flushed.0);
    while let Some(segment) = segments.get(number) {
        let scanned = scan.segment(segment, &mut progress).await;
        if scanned.map_err(OpenError::io(segment.path()))? {
            number += 1;
            continue;
        }
        let torn_max = torn_segments_max(layout, rocketmqs);
        let damage_until = damage_until(&segments[number..], torn_max).await;
        let damage_until = damage_until.map_err(OpenError::io(segment.path()))?;
        if damage_until <= scan.end {
            scan.finish(segment);
            kept = number + 1;
            break;
        }
        scan.damage_until = damage_until; // and once more from where the scan is
    }
    // Newest first: whatever ends this in the middle leaves no hole.
    for beyond in segments.drain(kept..).rev() {
        if holds_record(&beyond)
            .await
            .map_err(OpenError::io(beyond.path()))?
        {
            put_aside(layout, &beyond)?;
        } else {
            remove_segment(layout, &beyond)?;
        }
    }
    let old = segments.iter().map(|segment| segment.base());
    for outdated in old.filter(|base| *base < scan.outdated_below) {
        remove_if_there(&layout.sealed(outdated))?;
    }
    let fresh_tail = segments.last().is_none_or(|last| last.end() == scan.end);
    if fresh_tail {
        let (path, bytes) = (layout.segment(scan.end), config.segment_bytes);
        let next = Segment::create(layout, scan.end, bytes, medium);
        let next = next.map_err(OpenError::io(path))?;
        segments.push(Arc::new(next));
    }
    if let Err(error) = damage::note(layout, first, &scan.damaged, scan.end) {
        tracing::warn!(%error, "it cannot be noted where the log is damaged");
    }
    tracing::info!(
        first,
        end = scan.end,
        read_bytes = scan.read_bytes,
        queues = registry.len(),
        "the commit log is recovered"
    );
    let recovered = Recovered {
        end: LogOffset(scan.end),
        last_ms: scan.last_ms,
        covered: scan.covered,
        fresh_tail,
        read_from: flushed,
        read_bytes: scan.read_bytes,
        rocketmqs,
        rocketmqs_until: LogOffset(match rocketmqs {
            true => scan.end,
            false => rocketmqs_until,
        }),
        starts_known,
    };
    let segments = Segments::new(config.segment_bytes, segments);
    let release_at = ReleaseAt::of(config, medium);
    let log = CommitLog::new(segments, recovered.end, flushed, release_at);
    Ok((log, recovered))
}

/// The files of the log; refuses by name what does not belong there. Blocks.
pub(crate) fn find_files(config: &Config, layout: &Layout) -> Result<Files, OpenError> {
    let mut found = files::find(layout.log_dirs(), config.segment_bytes)
        .map_err(OpenError::io(layout.root()))?;
    for problem in std::mem::take(&mut found.problems) {
        return Err(match problem {
            Problem::Foreign(path) | Problem::Overlaps(path) => OpenError::ForeignFile { path },
            Problem::Double(path) => OpenError::DoubleSegment { path },
            Problem::Missing(path) => OpenError::MissingSegment { path },
            Problem::WrongLength {
                path,
                found,
                expected,
            } => OpenError::SegmentLength {
                path,
                found,
                expected,
            },
            Problem::Unfinished(path) => {
                fs::remove_file(&path).map_err(OpenError::io(&path))?;
                continue;
            }
        });
    }
    Ok(found)
}

/// All segments, oldest first, cold. Blocks.
fn open_segments(
    config: &Config,
    files: Files,
    medium: &Medium,
) -> Result<Vec<Arc<Segment>>, OpenError> {
    let open = |file: files::FoundFile| {
        let segment = Segment::open(&file.path, file.base, config.segment_bytes, medium);
        segment.map(Arc::new).map_err(OpenError::io(file.path))
    };
    files.files.into_iter().map(open).collect()
}

/// How many segments at the end of the log a crash can have torn. What was closed in order is not torn at all. In a
/// store of ours any stretch behind the checkpoint may be, if the disk was slow enough.
fn torn_segments_max(layout: &Layout, rocketmqs: bool) -> usize {
    match (fs::exists(&layout.abort()), rocketmqs) {
        (false, _) => 0,
        (true, true) => 2,
        (true, false) => 64,
    }
}

/// Of segments of which the first has bytes that do not count: below which log offset that is damage, not the end.
async fn damage_until(segments: &[Arc<Segment>], torn_max: usize) -> io::Result<u64> {
    for number in (torn_max.max(1)..segments.len()).rev() {
        if holds_record(&segments[number]).await? {
            return Ok(segments[number + 1 - torn_max.max(1)].base());
        }
    }
    Ok(0)
}

/// Whether there is a good record in a segment that anything was written to.
async fn holds_record(segment: &Segment) -> io::Result<bool> {
    let (file, base, bytes) = (segment.file().clone(), segment.base(), segment.bytes());
    let mut walk = Walk::new(file, base, bytes, 0);
    loop {
        match walk.next().await? {
            Step::Record(found) if found.view.is_ok() => return Ok(true),
            Step::Record(found) => {
                let position = found.position;
                walk.go_to(position);
            }
            // One that was prepared is not read to its end.
            Step::Full | Step::End(walk::NOTHING_MORE) => return Ok(false),
            Step::End(_) => {}
        }
        if !walk.find_next_record().await? {
            return Ok(false);
        }
    }
}

/// A segment with good records behind the end of the log is nobody's to delete. Blocks.
fn put_aside(layout: &Layout, segment: &Segment) -> Result<(), OpenError> {
    let path = segment.path();
    let aside = layout.cut_off(path, segment.base(), reactor::wall_ms());
    fs::rename(path, &aside)
        .and_then(|()| fs::sync_dir(aside.parent().expect("it is in a directory")))
        .and_then(|()| fs::sync_dir(path.parent().expect("a segment is in a directory")))
        .map_err(OpenError::io(path))?;
    tracing::warn!(from = %path.display(), to = %aside.display(),
        "a log file behind the end of the log holds records: it is kept aside, delete it when nobody misses them");
    Ok(())
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

fn remove_if_there(path: &Path) -> Result<(), OpenError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(OpenError::io(path)(error)),
        _ => Ok(()),
    }
}

/// Writes the sealed index of a full segment whose entries are in memory, and moves `covered` behind it.
async fn seal(
    layout: &Layout,
    registry: Arc<Registry>,
    newer: Vec<Arc<Segment>>,
    segment: &Arc<Segment>,
    covered: &mut Covered,
) -> io::Result<()> {
    let (base, end) = (segment.base(), segment.end());
    // A companion never says more than what is durable.
    let synced = segment.file().sync_data().await;
    synced.inspect_err(|_| unsynced::note(layout, LogOffset(base), LogOffset(end)))?;
    let path = layout.sealed(base);
    let whole = base..end;
    write_hot(
        registry,
        move || newer,
        segment.clone(),
        whole,
        Kind::Sealed,
        path,
    )
    .await?;
    for part in 0..covered.parts {
        // A leftover is removed when the store opens.
        let _ = fs::remove_file(&layout.part(base, part));
    }
    *covered = Covered {
        to: end,
        segment_base: end,
        parts: 0,
    };
    Ok(())
}

/// Makes the log ours: companions for all that RocketMQ wrote, its own ones aside, and a note that says so. From
/// then on the log follows our rules. `recovered` is what was found.
pub async fn adopt(
    store: &Arc<Store>,
    layout: &Layout,
    recovered: &mut Recovered,
) -> Result<(), OpenError> {
    if recovered.rocketmqs {
        let covered = &mut recovered.covered;
        if let Err(error) = cover(store, layout, covered, recovered.end).await {
            // It may have been the sync.
            unsynced::note(layout, LogOffset(covered.to), recovered.end);
            return Err(OpenError::io(layout.companions())(error));
        }
    }
    // Before RocketMQ's own files go: they, too, say whose log it is.
    let origin = layout.origin();
    if recovered.rocketmqs || !fs::exists(&origin) {
        let until = recovered.rocketmqs_until.0;
        files::write_origin(layout, until).map_err(OpenError::io(origin))?;
    }
    move_aside(layout, recovered.rocketmqs).map_err(OpenError::io(layout.aside()))
}

/// Brings the companions up to the end of the log, which is made durable first.
async fn cover(
    store: &Arc<Store>,
    layout: &Layout,
    covered: &mut Covered,
    end: LogOffset,
) -> io::Result<()> {
    let list = store.log().segments().load_full();
    let from = covered.segment_base;
    let hot = list.items().iter().enumerate();
    for (number, segment) in hot.filter(|(_, segment)| segment.base() >= from) {
        let newer = list.items()[number + 1..].to_vec();
        let registry = store.registry().clone();
        if segment.end() <= end.0 {
            seal(layout, registry, newer, segment, covered).await?;
        } else if covered.to < end.0 {
            segment.file().sync_data().await?;
            let path = layout.part(segment.base(), covered.parts);
            let range = covered.to..end.0;
            let (segment, newer) = (segment.clone(), move || newer);
            write_hot(registry, newer, segment, range, Kind::Part, path).await?;
            covered.to = end.0;
            covered.parts += 1;
        }
    }
    Ok(())
}

/// Moves what RocketMQ derived from the log out of its way: were it left, RocketMQ would believe it later. A timer log that
/// was not RocketMQ's is the broker's business.
fn move_aside(layout: &Layout, rocketmqs: bool) -> io::Result<()> {
    let aside = layout.aside();
    let mut moved = false;
    let timer_log = rocketmqs.then(|| layout.timer_log());
    for path in timer_log.into_iter().chain(layout.rocketmqs_own()) {
        if !fs::exists(&path) {
            continue;
        }
        fs::create_dir_all(&aside)?;
        let name = path.file_name().expect("these paths end in names");
        let to = aside.join(name);
        if fs::exists(&to) {
            // Of an earlier time that RocketMQ had the store.
            fs::remove_file(&to).or_else(|_| fs::remove_dir_all(&to))?;
        }
        fs::rename(&path, &to)?;
        moved = true;
        tracing::info!(from = %path.display(), to = %to.display(), "moved aside: RocketMQ makes it again from the log");
    }
    if moved {
        fs::sync_dir(&aside)?;
        fs::sync_dir(layout.root())?;
    }
    Ok(())
}
