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

/// `None`: the record is in no queue. `Err`: it names a topic or a queue that cannot be.
pub fn dispatch<'a>(view: &View<'a>) -> Result<Option<Dispatched<'a>>, &'static str> {
    let topic = std::str::from_utf8(view.topic).map_err(|_| "the topic is not text")?;
    if topic.is_empty() || topic.contains('\0') {
        return Err("the topic is no name");
    }
    let queue_id = u32::try_from(view.queue_id).map_err(|_| "the queue id is negative")?;
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
