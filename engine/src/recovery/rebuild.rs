//! Making sealed indexes again, while the store is open: those found missing at the start, and those a read finds damaged.
//!
//! The newest first: where a queue stood at the end of a segment is what the index behind it says it started with.
//! So each needs its own segment and its follower's index only, and knows the queues without messages in it too.

use super::files;
use super::indexing::NextOffsets;
use super::indexing::{Indexing, Place};
use super::walk::{Step, Walk};
use crate::checkpoint;
use crate::queue::Queue;
use crate::queue_index::Entry;
use crate::queue_index::active::ActiveIndex;
use crate::queue_index::companion::{Rebuilt, write_rebuilt};
use crate::queue_index::part::Listed;
use crate::queue_index::sealed::Sealed;
use crate::segment::Segment;
use crate::segments::List;
use crate::store::Store;
use reactor::offload;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How often somebody looks who waits for an index that another is making.
const WAIT: Duration = Duration::from_millis(20);

/// Makes the sealed indexes that cold segments lack. Runs beside the open store.
pub async fn rebuild_missing(store: Arc<Store>) {
    let list = store.log().segments().load_full();
    let mut made = 0;
    for number in (0..list.items().len()).rev() {
        let segment = &list.items()[number];
        if segment.hot().is_some() || is_valid(&store, segment).await {
            continue; // Of what is in memory the keeper takes care.
        }
        match rebuild_one(&store, &list, number).await {
            Ok(()) => made += 1,
            Err(error) => {
                tracing::error!(%error, segment = segment.base(), "the queue index of a log file cannot be made; its messages cannot be read");
            }
        }
    }
    if made > 0 {
        tracing::info!(made, "the missing queue indexes are made");
    }
}

/// Makes the sealed index of one segment, and before it those of newer ones that it needs.
pub async fn rebuild_sealed(store: &Arc<Store>, segment: Arc<Segment>) -> io::Result<()> {
    let list = store.log().segments().load_full();
    let Some((number, _)) = list.containing(segment.base()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let mut newest = number;
    while let Some(next) = list.items().get(newest + 1)
        && next.hot().is_none()
        && !is_valid(store, next).await
    {
        newest += 1;
    }
    for number in (number..=newest).rev() {
        rebuild_one(store, &list, number).await?;
    }
    Ok(())
}

async fn is_valid(store: &Arc<Store>, segment: &Arc<Segment>) -> bool {
    let (layout, segment) = (store.layout().clone(), segment.clone());
    offload("check a queue index", move || {
        checkpoint::open_valid(&layout, &segment).is_ok()
    })
    .await
}

/// The index behind this one is there.
async fn rebuild_one(store: &Arc<Store>, list: &List, number: usize) -> io::Result<()> {
    let segment = &list.items()[number];
    let Some(_turn) = store.start_rebuilding(segment.base()) else {
        while store.is_rebuilding(segment.base()) {
            reactor::sleep(WAIT).await;
        }
        return Ok(()); // Whether it is good is seen by reading it.
    };
    let read = read(store, segment).await?;
    let followers = match list.items().get(number + 1) {
        Some(next) if next.hot().is_none() => {
            Followers::Sealed(store.sealed().get(next.base()).await?)
        }
        _ => Followers::Hot {
            store: store.clone(),
            behind: segment.end(),
        },
    };
    store.sealed().forget(segment.base());
    let (store, segment) = (store.clone(), segment.clone());
    let base = segment.base();
    offload("write a queue index", move || {
        write(&store, &segment, &read, &followers)
    })
    .await?;
    tracing::info!(segment = base, "a queue index was rebuilt from the log");
    Ok(())
}

/// A segment read by itself.
struct ReadSegment {
    index: ActiveIndex,
    next: NextOffsets,
    latest_ms: i64,
    /// No RocketMQ wrote it: what does not follow its queue was read wrongly, and must not become a gap.
    is_ours: bool,
}

async fn read(store: &Store, segment: &Segment) -> io::Result<ReadSegment> {
    let layout = store.layout().clone();
    let rocketmqs_until = offload("whose the log is", move || {
        files::rocketmqs_until(&layout, &[])
    });
    let is_ours = segment.base() >= rocketmqs_until.await;
    let index = ActiveIndex::new(segment.base());
    let mut next = NextOffsets::default();
    let mut indexing = Indexing::default();
    let (file, base, bytes) = (segment.file().clone(), segment.base(), segment.bytes());
    let mut walk = Walk::new(file, base, bytes, 0);
    loop {
        let record = match walk.next().await? {
            Step::Record(record) => record,
            Step::Full => break,
            Step::End(why) => return Err(damaged(segment, walk.position(), why)),
        };
        let at = |why| damaged(segment, record.position, why);
        let view = record.view.map_err(at)?;
        let entry = indexing.entry(&index, record.position, &view).map_err(at)?;
        if let Some((to, entry)) = entry {
            let queue = store.registry().find_or_make(to.topic, to.queue_id);
            let place = next.add(&index, &queue, to.queue_offset, entry);
            if is_ours && place != Place::Follows {
                return Err(at("a record does not follow its queue"));
            }
        }
    }
    Ok(ReadSegment {
        index,
        next,
        latest_ms: indexing.latest_ms(),
        is_ours,
    })
}

/// What comes behind the segment.
enum Followers {
    Sealed(Arc<Sealed>),
    /// All of them are in memory, and there may be more by the time they are looked at.
    Hot {
        store: Arc<Store>,
        behind: u64,
    },
}

impl Followers {
    /// The queue's next offset at the end of the segment, if it was known then.
    fn start(&self, queue: &Queue) -> Option<u64> {
        match self {
            Followers::Sealed(sealed) => sealed.run(queue.no()).map(|run| run.first),
            Followers::Hot { store, behind } => {
                // Before the list and the runs: whatever is counted in it is in one of them, or lies before.
                let end = queue.max_offset();
                let list = store.log().segments().load();
                let newer = list.items().iter();
                let first = newer
                    .filter(|segment| segment.base() >= *behind)
                    .find_map(|segment| {
                        let hot = segment.hot();
                        let run = hot.as_ref()?.index.run(queue.no())?;
                        Some(run.first())
                    });
                Some(first.unwrap_or(end))
            }
        }
    }
}

fn write(
    store: &Store,
    segment: &Segment,
    read: &ReadSegment,
    followers: &Followers,
) -> io::Result<()> {
    let queues = store.registry().sorted();
    // Every queue with a message here is listed in what comes behind.
    let is_astray = |queue: &Arc<Queue>| {
        let next = read.next.get(queue);
        next.is_some() && next != followers.start(queue)
    };
    if read.is_ours && queues.iter().any(is_astray) {
        return Err(damaged(
            segment,
            0,
            "a queue does not go on where it ends here",
        ));
    }
    let rows: Vec<Rebuilt<'_>> = queues
        .iter()
        .filter_map(|queue| row(read, queue, followers.start(queue)))
        .collect();
    if let Followers::Hot { store, behind } = followers {
        let list = store.log().segments().load();
        let mut newer = list.items().iter();
        if newer.any(|newer| newer.base() >= *behind && newer.hot().is_none()) {
            // What it held is on disk only, and was not asked: whoever wants the index tries again.
            return Err(damaged(segment, 0, "the next segment has left memory"));
        }
    }
    write_rebuilt(
        &store.layout().sealed(segment.base()),
        segment.base()..segment.end(),
        read.index.base_ms(),
        read.latest_ms,
        &rows,
    )
}

/// `start` is where the next segment says the queue goes on.
fn row<'a>(read: &'a ReadSegment, queue: &'a Queue, start: Option<u64>) -> Option<Rebuilt<'a>> {
    let (topic, id) = (queue.topic(), queue.id());
    let stands = |first| Rebuilt {
        listed: Listed {
            topic,
            id,
            first,
            entries: 0,
        },
        run: None,
    };
    let (Some(run), Some(next)) = (read.index.run(queue.no()), read.next.get(queue)) else {
        return start.map(stands);
    };
    let end = start.unwrap_or(next);
    if Place::of(next, end) == Place::Anew {
        return Some(stands(end)); // Messages of an earlier life of the queue.
    }
    if let Some(last) = run.entry(next - 1) {
        for missing in next..end {
            read.index.append(queue.no(), missing, Entry::filler(last));
        }
    }
    let (first, entries) = (run.first(), (end - run.first()) as u32);
    Some(Rebuilt {
        listed: Listed {
            topic,
            id,
            first,
            entries,
        },
        run: Some(run),
    })
}

fn damaged(segment: &Segment, position: u64, why: &str) -> io::Error {
    let at = segment.base() + position;
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the log is damaged at {at}: {why}"),
    )
}
