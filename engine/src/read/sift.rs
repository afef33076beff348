//! Cold reads for readers that look at records: read as for everybody, then what is not wanted is left out.
//!
//! What is kept is copied. A reader who wants few of many messages would otherwise hold whole blocks for them.

use super::{Accept, Cold, Found, Read, copy_slice};
use crate::QueueOffset;
use crate::queue::Queue;
use crate::store::Store;
use protocol::record::View;
use reactor::{Gather, Source};
use std::io;
use std::sync::Arc;

impl Store {
    /// Goes on until something is wanted, or as many messages were looked at as one read may look at.
    pub(super) async fn sift(
        self: &Arc<Self>,
        queue: &Queue,
        cold: &Cold,
        accept: &mut impl Accept,
        into: &mut Gather,
    ) -> io::Result<Read> {
        let mut at = Cold {
            queue: cold.queue,
            offset: cold.offset,
            limits: cold.limits,
        };
        let behind_scan = cold.offset.0 + u64::from(cold.limits.scan_max.max(1));
        let mut read = Gather::default();
        let mut records = Vec::new();
        loop {
            read.clear();
            let by_hash = |tag_hash| accept.by_hash(tag_hash);
            let next = match self.fetch_from(queue, &at, by_hash, &mut read).await? {
                Read::Found(found) => {
                    records.clear();
                    read.copy_slices_to(&mut records);
                    if let Some(kept) = keep(&records, found.next, accept, into) {
                        return Ok(Read::Found(kept));
                    }
                    found.next
                }
                Read::NoneMatched { next } => next,
                Read::Empty if at.offset > cold.offset => {
                    return Ok(Read::NoneMatched { next: at.offset });
                }
                other => return Ok(other),
            };
            assert!(next > at.offset, "a read that finds something moves on");
            if next.0 >= behind_scan {
                return Ok(Read::NoneMatched { next });
            }
            at.offset = next;
        }
    }
}

/// Adds those of the records that are wanted. None: not one.
fn keep(
    records: &[u8],
    next: QueueOffset,
    accept: &mut impl Accept,
    into: &mut Gather,
) -> Option<Found> {
    let source = into.sources.len();
    let mut kept = Found {
        next,
        messages: 0,
        bytes: 0,
    };
    let mut rest = records;
    while !rest.is_empty() {
        let view = View::parse(rest).expect("a read hands out whole records");
        if accept.by_record(view.bytes) {
            copy_slice(into, source, view.bytes);
            kept.messages += 1;
            kept.bytes += view.bytes.len() as u64;
        }
        rest = &rest[view.bytes.len()..];
    }
    if kept.messages == 0 {
        return None;
    }
    into.sources.push(Source::Copied);
    Some(kept)
}
