//! Reads that need the disk: the queue's entries from a sealed index, the records from the log, asynchronously.
//!
//! Every record is checked to be the one its entry means before it is handed on. A sealed index that turns out
//! to be damaged is rebuilt from the log, and the read tried again.

use super::gather::Wanted;
use super::{Accept, Cold, Pick, Picker, Read, find_hot, outside};
use crate::queue::Queue;
use crate::queue_index::Place;
use crate::recovery;
use crate::segments::List;
use crate::store::Store;
use crate::{LogOffset, QueueOffset};
use protocol::record::{self, View};
use reactor::{Gather, is_of_medium};
use std::io;
use std::sync::Arc;

/// A record longer than this is damage, whatever its length field says.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// So many entries are looked up first; more only if a filter leaves room for more.
const STEP_ENTRIES: u32 = 64;
const STEP_ENTRIES_MAX: u32 = 256;

impl Store {
    /// Adds the messages a [`Store::read`] found to be cold to `into`. Suspends for the disk, blocks nobody.
    pub async fn fetch(
        self: &Arc<Self>,
        cold: Cold,
        mut accept: impl Accept,
        into: &mut Gather,
    ) -> io::Result<Read> {
        let queue = self
            .registry()
            .by_no(cold.queue)
            .expect("a read was given this queue");
        let fetched = if accept.looks_at_records() {
            self.sift(&queue, &cold, &mut accept, into).await
        } else {
            let by_hash = |tag_hash| accept.by_hash(tag_hash);
            self.fetch_from(&queue, &cold, by_hash, into).await
        };
        // The segment may have been reclaimed between the look and the read.
        match (fetched, queue.min_offset()) {
            (Err(_), min) if cold.offset.0 < min => Ok(Read::BelowStart {
                min: QueueOffset(min),
            }),
            (fetched, _) => fetched,
        }
    }

    pub(super) async fn fetch_from(
        self: &Arc<Self>,
        queue: &Queue,
        cold: &Cold,
        mut accept: impl FnMut(i32) -> bool,
        into: &mut Gather,
    ) -> io::Result<Read> {
        let max = queue.max_offset();
        if let Some(outside) = outside(queue, cold.offset, max) {
            return Ok(outside);
        }
        let tail = self.written().0.saturating_sub(self.config().hot_bytes);
        let mut picker = Picker::new(&cold.limits, cold.offset);
        let mut wanted = Vec::new();
        let mut step = STEP_ENTRIES;
        'picking: while picker.next < max && picker.may_scan() {
            let places = match self.places(queue, picker.next, step).await? {
                Places::Found(places) => places,
                Places::Starts(_) if picker.scanned > 0 => break,
                Places::Starts(first) => {
                    queue.raise_min(first);
                    let min = QueueOffset(first);
                    return Ok(Read::BelowStart { min });
                }
            };
            assert!(
                !places.is_empty(),
                "below the queue's end there is an entry"
            );
            let list = self.log().segments().load();
            let (mut near, mut is_near) = (0..0, false);
            for place in &places {
                let at = place.log_offset.0;
                if !near.contains(&at) {
                    (near, is_near) = self.blocks().near(&list, at);
                }
                // After a restart the tail comes from the disk, but it is still the tail. What was read ahead is in
                // memory as it would be in RocketMQ's page cache.
                let in_memory = at >= tail || is_near;
                let offset = picker.next;
                match picker.offer(place.bytes, place.tag_hash, in_memory, &mut accept) {
                    Pick::Full => break 'picking,
                    Pick::Skip => {}
                    Pick::Take => {
                        let place = *place;
                        wanted.push(Wanted { offset, place });
                    }
                }
            }
            step = (2 * step).min(STEP_ENTRIES_MAX);
        }
        let gathered = self.gather(queue, &wanted, into).await?;
        let mut missing = gathered.left_out;
        if let Some(number) = gathered.ends_at {
            picker.next = wanted[number].offset;
            missing.extend(wanted[number..].iter().map(|wanted| wanted.place));
        }
        for place in missing {
            picker.messages -= 1;
            picker.bytes -= u64::from(place.bytes);
        }
        Ok(picker.outcome())
    }

    /// The whole record at a log offset; `None` if there is none.
    pub async fn record_at(&self, at: LogOffset) -> io::Result<Option<Vec<u8>>> {
        let written = self.written().0;
        let list = self.log().segments().load_full();
        if at.0 < list.first() || at.0 + record::RECORD_BYTES_MIN as u64 > written {
            return Ok(None);
        }
        let mut bytes = self.bytes_at(&list, at.0, record::SYS_FLAG_AT).await?;
        let Ok(header) = record::len_at(&bytes) else {
            return Ok(None);
        };
        let claims = u64_at(&bytes, record::LOG_OFFSET_AT);
        let end = at.0.saturating_add(header.total as u64);
        if header.is_blank() || claims != at.0 || end > written || header.total > RECORD_BYTES_MAX {
            return Ok(None);
        }
        bytes = self.bytes_at(&list, at.0, header.total).await?;
        let is_whole = |view: View<'_>| view.check_body().is_ok();
        Ok(View::parse(&bytes).is_ok_and(is_whole).then_some(bytes))
    }

    /// Where the message at `offset` lies; `None` outside the queue.
    pub(crate) async fn place(
        self: &Arc<Self>,
        queue: &Queue,
        offset: u64,
    ) -> io::Result<Option<Place>> {
        if outside(queue, QueueOffset(offset), queue.max_offset()).is_some() {
            return Ok(None);
        }
        match self.places(queue, offset, 1).await? {
            Places::Found(places) => Ok(places.first().copied()),
            Places::Starts(first) => {
                queue.raise_min(first);
                Ok(None)
            }
        }
    }

    /// Up to `count` places from `offset` on, all of one segment. `offset` is below the queue's end.
    async fn places(
        self: &Arc<Self>,
        queue: &Queue,
        offset: u64,
        count: u32,
    ) -> io::Result<Places> {
        let max = queue.max_offset();
        let list = self.log().segments().load_full();
        if let Some(places) = hot_places(&list, queue, offset, max, count) {
            return Ok(Places::Found(places));
        }
        let mut rebuilt = None;
        loop {
            let mut looked_at = 0;
            match self
                .sealed_places(&list, queue, offset, count, &mut looked_at)
                .await
            {
                Err(error) if is_damage(&error) && rebuilt != Some(looked_at) => {
                    rebuilt = Some(looked_at);
                    let segment = list.items()[looked_at].clone();
                    tracing::warn!(%error, segment = segment.base(), "a queue index is damaged; it is rebuilt from the log");
                    self.sealed().forget(segment.base());
                    recovery::rebuild_sealed(self, segment).await?;
                }
                other => return other,
            }
        }
    }

    /// Finds the segment over the queue's next offsets: where it was the last time, then in growing steps from there, then
    /// by halves. `looked_at` says which segment's index was the last to be read.
    async fn sealed_places(
        &self,
        list: &List,
        queue: &Queue,
        offset: u64,
        count: u32,
        looked_at: &mut usize,
    ) -> io::Result<Places> {
        let first_number = list.first_number();
        let items = list.items();
        let cold = items.partition_point(|segment| segment.hot().is_none());
        let (mut low, mut high) = (0, cold);
        let hint = queue.cold_hint().checked_sub(first_number);
        let mut step = 1;
        // A reader in order finds it at the first try, and at a segment's border at the second.
        let mut probe = hint.filter(|hint| *hint < cold);
        while low < high {
            let at = probe.take().unwrap_or(low + (high - low) / 2);
            *looked_at = at;
            let sealed = self.sealed().lookup(items[at].base()).await?;
            let run = sealed.run(queue).await?;
            if run.is_none_or(|run| run.next() <= offset) {
                low = at + 1;
                if hint.is_some_and(|hint| at >= hint && step > 0) && at + step < high {
                    probe = Some(at + step);
                    step *= 2;
                }
                continue;
            }
            step = 0;
            high = at;
            if let Some(run) = run
                && (run.first..run.next()).contains(&offset)
            {
                queue.set_cold_hint(first_number + at);
                let from = (offset - run.first) as u32;
                return Ok(Places::Found(sealed.places(run, from, count).await?));
            }
        }
        if low == cold {
            // Older than every run in memory, yet in no sealed index: the queue starts later.
            return Ok(Places::Starts(first_hot(list, queue, offset)));
        }
        *looked_at = low;
        let sealed = self.sealed().lookup(items[low].base()).await?;
        let run = sealed.run(queue).await?;
        let run = run.expect("its next offset was looked at");
        Ok(Places::Starts(run.first))
    }

    /// A copy of `len` bytes of the log.
    async fn bytes_at(&self, list: &Arc<List>, log_offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = log_offset + bytes.len() as u64;
            let missing = len - bytes.len();
            let blocks = self.blocks();
            let extent = blocks.read(self.log(), list, at, missing as u64, 0).await?;
            let part = extent.bytes_from(at);
            bytes.extend_from_slice(&part[..part.len().min(missing)]);
        }
        Ok(bytes)
    }
}

/// What was found for an offset.
enum Places {
    /// At least one.
    Found(Vec<Place>),
    /// Nothing there any more: the queue starts at this offset.
    Starts(u64),
}

fn hot_places(list: &List, queue: &Queue, offset: u64, max: u64, count: u32) -> Option<Vec<Place>> {
    let at = find_hot(list, queue.no(), offset, max)?;
    let hot = list.items()[at.number].hot();
    let index = &hot.as_ref()?.index;
    let run = index.run(queue.no())?;
    let end = at.end.min(offset + u64::from(count));
    let places = (offset..end)
        .map_while(|offset| run.entry(offset))
        .map(|entry| index.place(entry));
    Some(places.collect())
}

/// The first offset above `offset` that a run in memory starts with.
fn first_hot(list: &List, queue: &Queue, offset: u64) -> u64 {
    list.items()
        .iter()
        .find_map(|segment| {
            let hot = segment.hot();
            let run = hot.as_ref()?.index.run(queue.no())?;
            Some(run.first())
        })
        .unwrap_or(offset + 1)
}

/// Of an index: it can be made again from the log.
fn is_damage(error: &io::Error) -> bool {
    let is_bad = matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
    );
    is_bad || is_of_medium(error)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(field)
}
