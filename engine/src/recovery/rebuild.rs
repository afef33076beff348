//! Making sealed indexes again, while the store is open: those found missing at the start, and those a read finds damaged.
//!
//! The newest first: where a queue stood at the end of a segment is what the index behind it says it started with.
//! So each needs its own segment and its follower's index only, and knows the queues without messages in it too.
//!
//! Damage is passed over as recovery does, but only if it reads the same every time: an index lasts, and what a disk or a
//! cable got wrong once must not become messages that are missing for ever.

use super::damage;
use super::indexing::{Doubts, Indexing, Message, NextOffsets, Place, Rules};
use super::walk::{Step, Walk};
use crate::checkpoint;
use crate::queue::Queue;
use crate::queue_index::Entry;
use crate::queue_index::active::ActiveIndex;
use crate::queue_index::companion::{Rebuilt, write_rebuilt};
use crate::queue_index::part::Listed;
use crate::queue_index::sealed::Sealed;
use crate::segment::Segment;
use crate::store::Store;
use protocol::record::View;
use reactor::offload;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// So often damage has to be read alike before it is passed over.
const READINGS: usize = 3;
/// How often somebody looks who waits for an index that another is making.
const WAIT: Duration = Duration::from_millis(20);

/// Makes the sealed indexes that cold segments lack. Runs beside the open store, and holds on to one segment at a time:
/// reclaim waits for those that are in use.
pub async fn rebuild_missing(store: Arc<Store>) {
    let mut made = 0;
    let mut below = u64::MAX;
    while let Some(segment) = last_below(&store, below) {
        below = segment.base();
        if segment.hot().is_some() || is_valid(&store, &segment).await {
            continue; // Of what is in memory the keeper takes care.
        }
        match rebuild_one(&store, segment).await {
            Ok(()) => made += 1,
            Err(_) if below < store.first().0 => return, // Reclaimed meanwhile, like all before it.
            Err(error) => {
                tracing::error!(%error, segment = below, "the queue index of a log file cannot be made; its messages cannot be read");
            }
        }
    }
    if made > 0 {
        tracing::info!(made, "the missing queue indexes are made");
    }
}

/// The newest segment that starts below the log offset.
fn last_below(store: &Store, log_offset: u64) -> Option<Arc<Segment>> {
    let list = store.log().segments().load();
    let older = list
        .items()
        .partition_point(|segment| segment.base() < log_offset);
    list.items()[..older].last().cloned()
}

/// Makes the sealed index of one segment, and before it those of newer ones that it needs.
pub async fn rebuild_sealed(store: &Arc<Store>, segment: Arc<Segment>) -> io::Result<()> {
    let mut wanted = vec![segment];
    while let Some(next) = behind(store, wanted[wanted.len() - 1].end())
        && next.hot().is_none()
        && !is_valid(store, &next).await
    {
        wanted.push(next);
    }
    while let Some(segment) = wanted.pop() {
        rebuild_one(store, segment).await?;
    }
    Ok(())
}

/// The segment that starts at the log offset.
fn behind(store: &Store, end: u64) -> Option<Arc<Segment>> {
    let list = store.log().segments().load();
    list.containing(end).map(|(_, segment)| segment.clone())
}

async fn is_valid(store: &Arc<Store>, segment: &Arc<Segment>) -> bool {
    let (layout, segment) = (store.layout().clone(), segment.clone());
    offload("check a queue index", move || {
        checkpoint::open_valid(&layout, &segment).is_ok()
    })
    .await
}

/// The index behind this one is there.
async fn rebuild_one(store: &Arc<Store>, segment: Arc<Segment>) -> io::Result<()> {
    let base = segment.base();
    if base < store.first().0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    let Some(_turn) = store.start_rebuilding(base) else {
        while store.is_rebuilding(base) {
            reactor::sleep(WAIT).await;
        }
        return Ok(()); // Whether it is good is seen by reading it.
    };
    let read = read(store, &segment).await?;
    let followers = match behind(store, segment.end()) {
        Some(next) if next.hot().is_none() => {
            Followers::Sealed(store.sealed().get(next.base()).await?)
        }
        _ => Followers::Hot {
            store: store.clone(),
            behind: segment.end(),
        },
    };
    store.sealed().forget(base);
    let store = store.clone();
    offload("write a queue index", move || {
        write(&store, &segment, &read, &followers)?;
        if store.first().0 == base {
            checkpoint::load_starts(store.layout(), &segment, store.registry())?;
            store.set_starts_known();
        }
        Ok::<_, io::Error>(())
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
    rules: Rules,
    /// What was passed over, as log offsets, and why.
    damaged: Vec<(Range<u64>, &'static str)>,
    /// Where queues stood before the segment, if messages of theirs may be missing.
    before: Option<Arc<Sealed>>,
}

async fn read(store: &Store, segment: &Segment) -> io::Result<ReadSegment> {
    let (base, end) = (segment.base(), segment.end());
    let (layout, first) = (store.layout().clone(), store.first().0);
    let known = offload("look where the log is damaged", move || {
        damage::known(&layout, first)
    });
    let known = known.await?;
    let mut before = None;
    if known
        .iter()
        .any(|damage| damage.range.start < end && damage.until > base)
    {
        before = before_of(store, segment).await;
    }
    let mut read = read_once(store, segment, before.clone()).await?;
    let found: Vec<Range<u64>> = read
        .damaged
        .iter()
        .map(|(range, _)| range.clone())
        .collect();
    if !found.is_empty() {
        before = before_of(store, segment).await;
        for _ in 1..READINGS {
            let again = read_once(store, segment, before.clone()).await?;
            if again.damaged != read.damaged {
                return Err(damaged(segment, 0, "it reads differently each time"));
            }
            read = again;
        }
        let (layout, until) = (store.layout().clone(), store.written().0);
        let noted = offload("note where the log is damaged", move || {
            damage::note(&layout, first, &found, until)
        });
        noted.await?;
    }
    if read.rules == Rules::Strict && known.iter().any(|damage| damage.range.end > base) {
        read.rules = Rules::Gaps; // What a queue goes on behind may be a gap.
    }
    Ok(read)
}

/// The index of the segment before, if it is there.
async fn before_of(store: &Store, segment: &Segment) -> Option<Arc<Sealed>> {
    let before = last_below(store, segment.base())?;
    store.sealed().get(before.base()).await.ok()
}

async fn read_once(
    store: &Store,
    segment: &Segment,
    before: Option<Arc<Sealed>>,
) -> io::Result<ReadSegment> {
    let (base, bytes) = (segment.base(), segment.bytes());
    let mut read = ReadSegment {
        index: ActiveIndex::new(base),
        next: NextOffsets::default(),
        latest_ms: 0,
        // Of ours, what does not follow its queue was read wrongly, and must not become a gap.
        rules: match base < store.rocketmqs_until().0 {
            true => Rules::RocketMqs,
            false if before.is_some() => Rules::Gaps,
            false => Rules::Strict,
        },
        damaged: Vec::new(),
        before,
    };
    let (mut indexing, mut doubts) = (Indexing::default(), Doubts::default());
    let mut walk = Walk::new(segment.file().clone(), base, bytes, 0);
    loop {
        let (position, why) = match walk.next().await? {
            Step::Full => break,
            Step::Record(record) => {
                let position = record.position;
                let added = record
                    .view
                    .and_then(|view| read.add(store, position, &view, &mut indexing, &mut doubts));
                match added {
                    Ok(()) => continue,
                    Err(why) => (position, why),
                }
            }
            Step::End(why) => (walk.position(), why),
        };
        walk.go_to(position);
        let is_last = !walk.find_next_record().await?;
        let end = if is_last { bytes } else { walk.position() };
        read.damaged.push((base + position..base + end, why));
        if read.rules == Rules::Strict {
            read.rules = Rules::Gaps;
        }
        if is_last {
            break;
        }
    }
    for message in doubts.finish(|queue| read.goes_on_at(queue).unwrap_or(0)) {
        read.list(&message);
    }
    read.latest_ms = indexing.latest_ms();
    Ok(read)
}

impl ReadSegment {
    fn add(
        &mut self,
        store: &Store,
        position: u64,
        view: &View<'_>,
        indexing: &mut Indexing,
        doubts: &mut Doubts,
    ) -> Result<(), &'static str> {
        let Some((to, entry)) = indexing.entry(&self.index, position, view)? else {
            return Ok(());
        };
        let message = Message {
            queue: store.registry().find_or_make(to.topic, to.queue_id),
            queue_offset: to.queue_offset,
            entry,
        };
        let next = self.goes_on_at(&message.queue);
        let next = next.unwrap_or(message.queue_offset);
        let settled = doubts.settle(next, message, self.rules)?;
        settled
            .iter()
            .flatten()
            .for_each(|message| self.list(message));
        Ok(())
    }

    fn list(&mut self, message: &Message) {
        let next = self.goes_on_at(&message.queue);
        let next = next.unwrap_or(message.queue_offset);
        self.next.add(&self.index, next, message);
    }

    /// Where the queue's next message is expected, as far as that can be told.
    fn goes_on_at(&self, queue: &Queue) -> Option<u64> {
        let stood_at = || Some(self.before.as_ref()?.run(queue.no())?.next());
        self.next.get(queue).or_else(stood_at)
    }
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
    let is_astray = |queue: &Arc<Queue>| match (read.next.get(queue), followers.start(queue)) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(next), Some(start)) => match Place::of(next, start) {
            Place::Follows => false,
            Place::Gap => read.rules == Rules::Strict,
            Place::Anew => true,
        },
    };
    if read.rules != Rules::RocketMqs && queues.iter().any(is_astray) {
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
        return match (read.goes_on_at(queue), start?) {
            // All its messages here, or before, are lost: they are listed as such.
            (Some(stood_at), start) if Place::of(stood_at, start) == Place::Gap => {
                let nowhere = Entry {
                    position: 0,
                    bytes: 0,
                    tag_hash: 0,
                    delta_ms: 0,
                };
                for missing in stood_at..start {
                    let filler = Entry::filler(nowhere);
                    read.index.append(queue.no(), missing, filler);
                }
                let (first, entries) = (stood_at, (start - stood_at) as u32);
                Some(Rebuilt {
                    listed: Listed {
                        topic,
                        id,
                        first,
                        entries,
                    },
                    run: read.index.run(queue.no()),
                })
            }
            (_, start) => Some(stands(start)),
        };
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
