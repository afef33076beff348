//! Records on their way from the log to a socket: gathered in place, or copied where copying is cheaper.

use reactor::Gather;

use crate::shard::Connection;

/// Ranges of this average length and less travel faster as one copy behind their head than as a list of addresses.
const COPIED_RANGE_BYTES_MAX: usize = 2048;
/// Larger answers are never copied.
const COPIED_BYTES_MAX: usize = 64 << 10;
/// What is lent is copied up to this length: a few messages, which leave together with others.
const LENT_COPIED_BYTES_MAX: usize = 8 << 10;
/// Nothing is copied for a peer that does not take what is queued for it: ranges of the log cost no memory.
const COPIED_QUEUED_BYTES_MAX: usize = 1 << 20;

/// Queues an answer: `head` first, then the ranges of `gather`, which is left empty. The caller commits.
pub fn send(connection: &Connection, head: impl FnOnce(&mut Vec<u8>), gather: &mut Gather) {
    debug_assert!(gather.head.is_empty(), "ranges only");
    let bytes = gather.len();
    let outbox = connection.outbox();
    let copied_bytes_max = match gather.is_lent() {
        true => LENT_COPIED_BYTES_MAX,
        false => COPIED_BYTES_MAX.min(COPIED_RANGE_BYTES_MAX * gather.slices.len()),
    };
    if bytes <= copied_bytes_max && outbox.queued_bytes() < COPIED_QUEUED_BYTES_MAX {
        outbox.with(|queued| {
            head(queued);
            gather.for_each_slice(|range| queued.extend_from_slice(range));
        });
        gather.clear();
        return;
    }
    let empty = outbox.recycle_gather();
    let mut full = std::mem::replace(gather, empty);
    head(&mut full.head);
    outbox.push_gather(full);
}
