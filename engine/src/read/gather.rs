//! From places to slices of cold records: everything that has to be read is asked for at once, and nothing is handed on
//! that is not what was stored, as far as RocketMQ's records can tell: their bodies have a checksum; topic, queue and
//! offset have to be those they are listed under; other fields and properties only have to fit the record's length.

use super::blocks::{BLOCK_BYTES, DENSE_BYTES, Extent};
use super::prefetch::prefetch;
use super::{add_slice, copy_slice};
use crate::dispatch::{Dispatched, dispatch};
use crate::queue::Queue;
use crate::queue_index::Place;
use crate::segments::List;
use crate::store::Store;
use protocol::record::View;
use reactor::{Gather, Slice, Source, bulk_turn, is_of_medium};
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

/// Reads of one answer that are in flight at one time.
const READS_MAX: usize = 32;

/// Other places of a segment that are tried when one cannot be read.
const ELSEWHERE_MAX: usize = 4;

/// A message that is wanted: its queue offset and where its record lies.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub offset: u64,
    pub place: Place,
}

/// What one answer's records are made of.
struct Reading<'a> {
    queue: &'a Queue,
    list: Arc<List>,
    known: Vec<Known>,
    /// Blocks that could not be read as a whole. What is wanted of them is read by itself.
    broken: Vec<Range<u64>>,
    /// Records are copied: too much memory waits already for peers that do not take what they asked for.
    copies: bool,
}

/// What became of the places.
#[derive(Default)]
pub(super) struct Gathered {
    /// Damaged, or on a bad sector: not among what was gathered, and nobody will ever read them again.
    pub left_out: Vec<Place>,
    /// The number of the first that cannot be read now, behind some that can. Neither it nor what follows was gathered.
    pub ends_at: Option<usize>,
}

/// The memory records are in, and where it is among the gather's sources once one of them is used.
type Known = (Extent, Option<usize>);

impl Store {
    /// Adds the records that are `wanted` of a queue to `into`, in order.
    pub(super) async fn gather(
        &self,
        queue: &Queue,
        wanted: &[Wanted],
        into: &mut Gather,
    ) -> io::Result<Gathered> {
        let mut reading = Reading {
            queue,
            list: self.log().segments().load_full(),
            known: Vec::new(),
            broken: Vec::new(),
            copies: self.blocks().is_pinned(),
        };
        self.read_all(&mut reading, wanted).await?;
        // Checksums are computed below.
        let bytes: usize = wanted.iter().map(|one| one.place.bytes as usize).sum();
        bulk_turn(bytes).await;
        let mut gathered = Gathered::default();
        for (number, Wanted { place, .. }) in wanted.iter().enumerate() {
            if let Some(next) = wanted.get(number + 1) {
                reading.prefetch(&next.place);
            }
            let (log_offset, bytes) = (place.log_offset.0, place.bytes);
            match self.add(&mut reading, &wanted[number..], into).await {
                Ok(true) => continue,
                Ok(false) => tracing::error!(
                    log_offset,
                    bytes,
                    "the disk does not hold the message it was given: the message is lost"
                ),
                Err(error) if is_of_medium(&error) => {
                    let for_long = self.blocks().unreadable().has_been_for_long(log_offset);
                    if for_long && self.is_readable_elsewhere(&reading.list, log_offset).await {
                        tracing::error!(log_offset, bytes, %error, "a message cannot be read: it is passed over");
                    } else if number > gathered.left_out.len() {
                        gathered.ends_at = Some(number);
                        return Ok(gathered);
                    } else {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            gathered.left_out.push(*place);
        }
        Ok(gathered)
    }

    /// Reads what is wanted of each block, side by side.
    async fn read_all(&self, reading: &mut Reading<'_>, wanted: &[Wanted]) -> io::Result<()> {
        let list = &reading.list;
        let (log, blocks) = (self.log(), self.blocks());
        let mut reads = Vec::new();
        let mut planned_to = 0;
        for (number, Wanted { place, .. }) in wanted.iter().enumerate() {
            let (at, end) = (
                place.log_offset.0,
                place.log_offset.0 + u64::from(place.bytes),
            );
            let from = at.max(planned_to);
            if from >= end || reads.len() == READS_MAX {
                continue;
            }
            let dense = wanted_after(&wanted[number..], from);
            let block = blocks.block_range(list, from);
            planned_to = match dense >= DENSE_BYTES {
                true => block.end,
                false => end,
            };
            reads.push(Box::pin(async move {
                let read = blocks.read(log, list, from, end - from, dense).await;
                read.map_err(|error| (block, error))
            }));
        }
        for read in all(reads).await {
            match read {
                Ok(extent) => reading.known.push((extent, None)),
                Err((block, error)) if is_of_medium(&error) => reading.broken.push(block),
                Err((_, error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Adds the first of `wanted`. False: what the disk has there is something else, also when it is read again.
    async fn add(
        &self,
        reading: &mut Reading<'_>,
        wanted: &[Wanted],
        into: &mut Gather,
    ) -> io::Result<bool> {
        let before = Mark::of(into);
        let Wanted { place, .. } = wanted[0];
        let at = place.log_offset.0;
        let end = at + u64::from(place.bytes);
        for is_second_try in [false, true] {
            if is_second_try {
                // What was wrong may have been the reading.
                self.blocks().forget(&reading.list, at, end);
                let is_apart = |extent: &Extent| extent.end() <= at || extent.from >= end;
                reading.known.retain(|(extent, _)| is_apart(extent));
            }
            let added = self.add_record(reading, wanted, into).await;
            if added.is_ok() && reading.is_record(&wanted[0]) {
                return Ok(true);
            }
            before.go_back(into);
            added?;
        }
        Ok(false)
    }

    /// Adds the first of `wanted`, whatever is there.
    async fn add_record(
        &self,
        reading: &mut Reading<'_>,
        wanted: &[Wanted],
        into: &mut Gather,
    ) -> io::Result<()> {
        let Wanted { place, .. } = wanted[0];
        let mut at = place.log_offset.0;
        let end = at + u64::from(place.bytes);
        while at < end {
            let number = match find(&reading.known, at) {
                Some(number) => number,
                None => {
                    let is_broken = reading.broken.iter().any(|block| block.contains(&at));
                    let dense = match is_broken {
                        true => 0,
                        false => wanted_after(wanted, at),
                    };
                    let (log, list) = (self.log(), &reading.list);
                    let read = self.blocks().read(log, list, at, end - at, dense).await;
                    match read {
                        Err(error) if !is_broken && is_of_medium(&error) => {
                            let block = self.blocks().block_range(list, at);
                            reading.broken.push(block);
                            continue;
                        }
                        read => reading.known.push((read?, None)),
                    }
                    reading.known.len() - 1
                }
            };
            let (extent, source) = &mut reading.known[number];
            let missing = (end - at) as usize;
            let bytes = extent.bytes_from(at);
            let bytes = &bytes[..bytes.len().min(missing)];
            let source = *source.get_or_insert_with(|| {
                into.sources.push(match reading.copies {
                    true => Source::Copied,
                    false => Source::Buffer(extent.buffer.clone()),
                });
                into.sources.len() - 1
            });
            match reading.copies {
                true => copy_slice(into, source, bytes),
                false => add_slice(into, source, at - extent.from, bytes.len() as u32),
            }
            at += bytes.len() as u64;
        }
        Ok(())
    }

    /// Whether the segment of a record that cannot be read is readable elsewhere: then it is a sector that is bad, not the
    /// disk that is gone.
    async fn is_readable_elsewhere(&self, list: &Arc<List>, log_offset: u64) -> bool {
        let block = self.blocks().block_range(list, log_offset);
        let Some((_, segment)) = list.containing(log_offset) else {
            return false;
        };
        let blocks =
            (segment.base()..self.written().0.min(segment.end())).step_by(BLOCK_BYTES as usize);
        for elsewhere in blocks.filter(|at| *at != block.start).take(ELSEWHERE_MAX) {
            let read = self.blocks().read(self.log(), list, elsewhere, 1, 0);
            if read.await.is_ok() {
                return true;
            }
        }
        false
    }
}

impl Reading<'_> {
    /// Has the record's bytes brought nearer while another is being looked at.
    fn prefetch(&self, place: &Place) {
        let at = place.log_offset.0;
        if let Some(number) = find(&self.known, at) {
            let bytes = self.known[number].0.bytes_from(at);
            prefetch(&bytes[..bytes.len().min(place.bytes as usize)]);
        }
    }

    /// Whether what was read is the record that was stored there, and belongs where it is listed.
    fn is_record(&self, wanted: &Wanted) -> bool {
        let Wanted { place, offset } = *wanted;
        let (at, len) = (place.log_offset.0, place.bytes as usize);
        // Its tag is the consumer's to compare.
        let is_listed = |to: Dispatched<'_>| {
            let queue = (to.topic, to.queue_id);
            queue == (self.queue.topic(), self.queue.id()) && to.queue_offset == offset
        };
        let is_whole = |bytes: &[u8]| {
            View::parse(bytes).is_ok_and(|view| {
                view.bytes.len() == len
                    && view.log_offset == at
                    && view.check_body().is_ok()
                    && dispatch(&view).is_ok_and(|to| to.is_some_and(is_listed))
            })
        };
        let mut copy = Vec::new();
        while copy.len() < len {
            let from = at + copy.len() as u64;
            let Some(number) = find(&self.known, from) else {
                return false;
            };
            let bytes = self.known[number].0.bytes_from(from);
            if copy.is_empty() && bytes.len() >= len {
                return is_whole(&bytes[..len]);
            }
            copy.extend_from_slice(&bytes[..bytes.len().min(len - copy.len())]);
        }
        is_whole(&copy)
    }
}

/// A gather as it was before something was added that must not stay.
struct Mark {
    slices: usize,
    /// It may have become longer.
    last: Option<Slice>,
    copied: usize,
}

impl Mark {
    fn of(gather: &Gather) -> Mark {
        Mark {
            slices: gather.slices.len(),
            last: gather.slices.last().copied(),
            copied: gather.copied.len(),
        }
    }

    fn go_back(&self, gather: &mut Gather) {
        gather.slices.truncate(self.slices);
        gather.copied.truncate(self.copied);
        if let (Some(slice), Some(last)) = (gather.slices.last_mut(), self.last) {
            *slice = last;
        }
    }
}

fn find(known: &[Known], at: u64) -> Option<usize> {
    let holds = |(extent, _): &Known| (extent.from..extent.end()).contains(&at);
    known.iter().rposition(holds)
}

/// How many bytes of the block that begins at or before `at` the coming places want.
fn wanted_after(wanted: &[Wanted], at: u64) -> u64 {
    let block_end = at + BLOCK_BYTES;
    wanted
        .iter()
        .map(|wanted| wanted.place)
        .take_while(|place| place.log_offset.0 < block_end)
        .map(|place| u64::from(place.bytes))
        .sum()
}

/// Drives all of them at once.
async fn all<F: Future>(futures: Vec<Pin<Box<F>>>) -> Vec<F::Output> {
    let mut waiting: Vec<Option<Pin<Box<F>>>> = futures.into_iter().map(Some).collect();
    let mut done: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut pending = false;
        for (future, done) in waiting.iter_mut().zip(&mut done) {
            let Some(running) = future else {
                continue;
            };
            match running.as_mut().poll(context) {
                Poll::Ready(output) => {
                    *done = Some(output);
                    *future = None;
                }
                Poll::Pending => pending = true,
            }
        }
        match pending {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    })
    .await;
    done.into_iter().flatten().collect()
}
