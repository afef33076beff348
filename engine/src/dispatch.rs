//! From a stored record to its index entry, when the log is read again. On the append the batch knows all this.

use protocol::properties;
use protocol::record::View;
use protocol::sysflag;

/// Where a record belongs.
#[derive(Debug, PartialEq, Eq)]
pub struct Dispatched<'a> {
    pub topic: &'a str,
    pub queue_id: u32,
    pub queue_offset: u64,
    pub tag_hash: i32,
}

/// The end of a queue has to be an offset as well.
const QUEUE_OFFSET_LIMIT: u64 = i64::MAX as u64;

/// `None`: the record is in no queue. `Err`: it names a topic or a queue that cannot be.
pub fn dispatch<'a>(view: &View<'a>) -> Result<Option<Dispatched<'a>>, &'static str> {
    let topic = std::str::from_utf8(view.topic).map_err(|_| "the topic is not text")?;
    if topic.is_empty() || topic.contains('\0') {
        return Err("the topic is no name");
    }
    let queue_id = u32::try_from(view.queue_id).map_err(|_| "the queue id is negative")?;
    // Offsets are signed on the wire, and no checksum covers this one.
    if view.queue_offset >= QUEUE_OFFSET_LIMIT {
        return Err("the queue offset is negative");
    }
    let transaction = sysflag::transaction(view.sys_flag);
    if matches!(
        transaction,
        sysflag::TRANSACTION_PREPARED | sysflag::TRANSACTION_ROLLBACK
    ) {
        return Ok(None);
    }
    Ok(Some(Dispatched {
        topic,
        queue_id,
        queue_offset: view.queue_offset,
        tag_hash: tag_hash(view.properties),
    }))
}

/// The hash of the record's tag; 0 without one.
pub fn tag_hash(stored_properties: &[u8]) -> i32 {
    properties::get_str(stored_properties, properties::TAGS).map_or(0, properties::tag_hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::record::Draft;
    use protocol::text::Text;
    use std::net::SocketAddr;

    fn record(topic: &str, sys_flag: i32, properties: &[u8]) -> Vec<u8> {
        let host = SocketAddr::from(([127, 0, 0, 1], 10911));
        let draft = Draft {
            topic,
            queue_id: 3,
            flag: 0,
            sys_flag,
            born_ms: 1,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            properties: Text::plain(properties),
            body: b"body",
        };
        let mut bytes = Vec::new();
        draft.append_to(&mut bytes);
        bytes
    }

    #[test]
    fn a_record_goes_to_its_queue_under_its_tags_hash() {
        let bytes = record("t", 0, b"KEYS\x01k\x02TAGS\x01TagA\x02");
        let view = View::parse(&bytes).expect("a draft is a record");
        let to = dispatch(&view).expect("a good record").expect("a queue");
        assert_eq!((to.topic, to.queue_id, to.queue_offset), ("t", 3, 0));
        // Java's "TagA".hashCode().
        assert_eq!(to.tag_hash, 2_598_919);
        let bytes = record("t", sysflag::TRANSACTION_COMMIT, b"");
        let view = View::parse(&bytes).expect("a draft is a record");
        let to = dispatch(&view).expect("a good record").expect("a queue");
        assert_eq!(to.tag_hash, 0);
    }

    #[test]
    fn what_was_prepared_or_rolled_back_is_in_no_queue() {
        for transaction in [sysflag::TRANSACTION_PREPARED, sysflag::TRANSACTION_ROLLBACK] {
            let bytes = record("t", transaction, b"");
            let view = View::parse(&bytes).expect("a draft is a record");
            assert_eq!(dispatch(&view), Ok(None));
        }
    }

    #[test]
    fn an_offset_no_client_could_be_told_is_damage() {
        let largest = i64::MAX as u64 - 1;
        for (offset, counts) in [(largest, true), (largest + 1, false), (u64::MAX, false)] {
            let mut bytes = record("t", 0, b"");
            let field = protocol::record::QUEUE_OFFSET_AT..protocol::record::LOG_OFFSET_AT;
            bytes[field].copy_from_slice(&offset.to_be_bytes());
            let view = View::parse(&bytes).expect("the parts fit together");
            assert_eq!(dispatch(&view).is_ok(), counts, "{offset}");
        }
    }

    #[test]
    fn a_topic_of_zeros_is_no_name() {
        let bytes = record("\0\0", 0, b"");
        let view = View::parse(&bytes).expect("the parts fit together");
        assert!(dispatch(&view).is_err());
    }
}
