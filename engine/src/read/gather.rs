//! From places to slices of cold records: everything that has to be read is asked for at once, and nothing is handed on
//! that is not, byte for byte, what was stored.

use super::add_slice;
use super::blocks::{BLOCK_BYTES, DENSE_BYTES, Extent};
use crate::queue_index::Place;
use crate::segments::List;
use crate::store::Store;
use protocol::record::View;
use reactor::{Gather, Slice, Source};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

/// Reads of one answer that are in flight at one time.
const READS_MAX: usize = 32;

/// The memory records are in, and where it is among the gather's sources once one of them is used.
type Known = (Extent, Option<usize>);

impl Store {
    /// Adds the records at `places` to `into`, in order. Returns the places of those that are damaged on the disk,
    /// which are left out: nobody will ever read them again.
    pub(super) async fn gather(
        &self,
        places: &[Place],
        into: &mut Gather,
    ) -> io::Result<Vec<Place>> {
        let list = self.log().segments().load_full();
        let mut known = self.read_all(&list, places).await?;
        let mut left_out = Vec::new();
        for (number, place) in places.iter().enumerate() {
            let before = (into.slices.len(), into.slices.last().copied());
            self.add_record(&list, &places[number..], &mut known, into)
                .await?;
            if is_record(&known, place) {
                continue;
            }
            take_back(into, before);
            // What is wrong may have been the reading.
            let at = place.log_offset.0;
            let end = at + u64::from(place.bytes);
            self.blocks().forget(&list, at, end);
            known.retain(|(extent, _)| extent.end() <= at || extent.from >= end);
            self.add_record(&list, &places[number..], &mut known, into)
                .await?;
            if !is_record(&known, place) {
                tracing::error!(
                    log_offset = at,
                    bytes = place.bytes,
                    "the disk does not hold the message it was given: the message is lost"
                );
                take_back(into, before);
                left_out.push(*place);
            }
        }
        Ok(left_out)
    }

    /// Reads what is wanted of each block, side by side.
    async fn read_all(&self, list: &Arc<List>, places: &[Place]) -> io::Result<Vec<Known>> {
        let mut reads = Vec::new();
        let mut planned_to = 0;
        for (number, place) in places.iter().enumerate() {
            let (at, end) = (
                place.log_offset.0,
                place.log_offset.0 + u64::from(place.bytes),
            );
            let from = at.max(planned_to);
            if from >= end || reads.len() == READS_MAX {
                continue;
            }
            let dense = wanted_after(&places[number..], from);
            planned_to = match dense >= DENSE_BYTES {
                true => self.blocks().block_end(list, from),
                false => end,
            };
            let (log, blocks) = (self.log(), self.blocks());
            reads.push(Box::pin(blocks.read(log, list, from, end - from, dense)));
        }
        let extents = all(reads).await.into_iter();
        extents.map(|extent| Ok((extent?, None))).collect()
    }

    /// Adds the first of `places`.
    async fn add_record(
        &self,
        list: &Arc<List>,
        places: &[Place],
        known: &mut Vec<Known>,
        into: &mut Gather,
    ) -> io::Result<()> {
        let (mut at, bytes) = (places[0].log_offset.0, u64::from(places[0].bytes));
        let end = at + bytes;
        while at < end {
            let number = match find(known, at) {
                Some(number) => number,
                None => {
                    let dense = wanted_after(places, at);
                    let blocks = self.blocks();
                    let extent = blocks.read(self.log(), list, at, end - at, dense).await?;
                    known.push((extent, None));
                    known.len() - 1
                }
            };
            let (extent, source) = &mut known[number];
            let source = *source.get_or_insert_with(|| {
                into.sources.push(Source::Buffer(extent.buffer.clone()));
                into.sources.len() - 1
            });
            let len = extent.bytes_from(at).len().min((end - at) as usize);
            add_slice(into, source, at - extent.from, len as u32);
            at += len as u64;
        }
        Ok(())
    }
}

fn find(known: &[Known], at: u64) -> Option<usize> {
    let holds = |(extent, _): &Known| (extent.from..extent.end()).contains(&at);
    known.iter().rposition(holds)
}

/// Whether what was read for a place is the record that was stored there.
fn is_record(known: &[Known], place: &Place) -> bool {
    let (at, len) = (place.log_offset.0, place.bytes as usize);
    let is_whole = |bytes: &[u8]| {
        View::parse(bytes).is_ok_and(|view| {
            view.bytes.len() == len && view.log_offset == at && view.check_body().is_ok()
        })
    };
    let mut copy = Vec::new();
    while copy.len() < len {
        let from = at + copy.len() as u64;
        let Some(number) = find(known, from) else {
            return false;
        };
        let bytes = known[number].0.bytes_from(from);
        if copy.is_empty() && bytes.len() >= len {
            return is_whole(&bytes[..len]);
        }
        copy.extend_from_slice(&bytes[..bytes.len().min(len - copy.len())]);
    }
    is_whole(&copy)
}

/// Removes the slices that were added since; the last one before may have become longer.
fn take_back(into: &mut Gather, (count, last): (usize, Option<Slice>)) {
    into.slices.truncate(count);
    if let (Some(slice), Some(last)) = (into.slices.last_mut(), last) {
        *slice = last;
    }
}

/// How many bytes of the block that begins at or before `at` the coming places want.
fn wanted_after(places: &[Place], at: u64) -> u64 {
    let block_end = at + BLOCK_BYTES;
    places
        .iter()
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
