//! A batch of records on its way to the writer and back.
//!
//! A shard fills it, the writer gives every item its place, the same object returns with the places filled in.
//! It is reused for ever: once its vectors have grown, nothing is allocated per message.

use crate::append::AppendError;
use crate::dispatch::dispatch;
use crate::{Queue, QueueNo};
use protocol::record::{Placed, View};

/// Encoded records, ready but for queue offset, log offset and store time.
#[derive(Debug)]
pub struct Batch {
    /// The shard it belongs to; the store does not look at it, nor at the next two.
    pub shard: u16,
    /// Its senders are told when the records are released; otherwise as soon as they are laid.
    pub wait: bool,
    /// Released was not soon enough: the records are stored, and may still become durable.
    pub late: bool,
    /// It keeps a promise (a delayed message that is due, or must move): taken even when the disk is nearly full.
    pub is_promised: bool,
    /// All of its records are taken or none, and a crash can only cut them at the very end of the log.
    pub is_whole: bool,
    pub(crate) bytes: Vec<u8>,
    pub(crate) items: Vec<Item>,
}

/// One record of a batch, and after the append its place.
#[derive(Clone, Debug)]
pub struct Item {
    /// Whatever the sender wants back with the answer.
    pub token: u64,
    pub queue: QueueNo,
    pub queue_offset: u64,
    pub log_offset: u64,
    pub store_ms: i64,
    /// Why the record was not taken; its places mean nothing then.
    pub error: Option<AppendError>,
    pub(crate) tag_hash: i32,
    pub(crate) start: u32,
    pub(crate) len: u32,
    pub(crate) store_time_at: u32,
}

impl Item {
    /// Length of the stored record.
    pub fn record_bytes(&self) -> u32 {
        self.len
    }
}

impl Batch {
    pub fn new(shard: u16) -> Batch {
        Batch {
            shard,
            is_promised: false,
            is_whole: false,
            wait: true,
            late: false,
            bytes: Vec::new(),
            items: Vec::new(),
        }
    }

    /// Forgets the records, keeps the memory.
    pub fn clear(&mut self) {
        self.late = false;
        self.bytes.clear();
        self.items.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many records wait in it.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Whether any of the records was taken.
    pub fn has_taken(&self) -> bool {
        self.items.iter().any(|item| item.error.is_none())
    }

    /// None of the records counts any more, although they may be in the log.
    pub fn refuse(&mut self, error: AppendError) {
        for item in &mut self.items {
            item.error.get_or_insert(error);
        }
    }

    /// Adds the record that `encode` writes to the end of the vector it is given.
    pub fn push(
        &mut self,
        queue: &Queue,
        tag_hash: i32,
        token: u64,
        encode: impl FnOnce(&mut Vec<u8>) -> Placed,
    ) {
        let start = self.bytes.len();
        let placed = encode(&mut self.bytes);
        let len = self.bytes.len() - start;
        assert_eq!(placed.len, len, "the encoder wrote what it said");
        assert!(
            self.bytes.len() <= u32::MAX as usize,
            "a batch stays under 4 GiB"
        );
        debug_assert!(
            is_listed_as(&self.bytes[start..], queue, tag_hash),
            "a record is listed as recovery would list it"
        );
        self.items.push(Item {
            token,
            queue: queue.no(),
            queue_offset: 0,
            log_offset: 0,
            store_ms: 0,
            error: None,
            tag_hash,
            start: start as u32,
            len: len as u32,
            store_time_at: placed.store_time_at as u32,
        });
    }
}

/// Whether whoever reads the log again would list this record under the same queue and tag.
fn is_listed_as(record: &[u8], queue: &Queue, tag_hash: i32) -> bool {
    let Ok(view) = View::parse(record) else {
        return false;
    };
    dispatch(&view).is_ok_and(|to| {
        to.is_some_and(|to| {
            (to.topic, to.queue_id, to.tag_hash) == (queue.topic(), queue.id(), tag_hash)
        })
    })
}
