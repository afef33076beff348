//! A batch is back from the writer: every sender gets the place of its message, or the reason why it has none.

use std::fmt::Display;
use std::rc::Rc;

use engine::{AppendError, Batch, Item, Store};
use protocol::code::response;
use protocol::properties::{MSG_REGION, TRACE_ON};
use protocol::record::append_message_id;
use protocol::{Value, write_response};
use reactor::Instant;

use crate::messages::Refusal;
use crate::shard::Shard;
use crate::shard::sends::{self, BatchProgress, PendingSend};
use crate::shard::slab::Key;

/// Queues the answers; the caller sends them off.
pub fn acknowledge(shard: &Rc<Shard>, batch: Box<Batch>) {
    let (mut taken, mut bytes) = (0u64, 0u64);
    let now = reactor::turn_time();
    // A message that is late is stored all the same: its sender gets its place, and decides.
    let code = match batch.late {
        false => response::SUCCESS,
        true => response::FLUSH_DISK_TIMEOUT,
    };
    for item in batch.items() {
        if item.error.is_none() {
            taken += 1;
            bytes += u64::from(item.record_bytes());
        }
        let sender = sends::key_of(item.token);
        let taken_at = sender.and_then(|key| settle(shard, key, item, code));
        if item.error.is_none() {
            let waited = taken_at.map(|taken| now.saturating_since(taken));
            let bytes = u64::from(item.record_bytes());
            shard.tally.put(item.queue, bytes, waited);
        }
    }
    let stats = shard.stats();
    stats.put_messages.add(taken);
    stats.put_bytes.add(bytes);
    let failed = batch.items().len() as u64 - taken;
    if failed > 0 {
        stats.put_failed.add(failed);
    }
    shard.outgoing.recycle(batch);
}

/// When the send was taken, if its sender is known.
fn settle(shard: &Shard, key: Key, item: &Item, code: i32) -> Option<Instant> {
    let mut sends = shard.sends.borrow_mut();
    let store_host = shard.views.borrow().settings.value().advertised();
    if let Some(send) = sends.get_mut(key)
        && let Some(progress) = &mut send.batch
    {
        progress.add(item, store_host);
        if progress.records_left > 0 {
            return Some(send.taken);
        }
    }
    let send = sends.remove(key)?;
    drop(sends);
    match &send.batch {
        None => match &item.error {
            None => {
                let mut id = shard.scratch.message_id.borrow_mut();
                id.clear();
                append_message_id(&mut id, store_host, item.log_offset);
                answer(shard, &send, code, &id, item.queue_offset);
            }
            Some(error) => refuse(shard, &send, error),
        },
        Some(progress) => match (&progress.error, progress.first_queue_offset) {
            (None, Some(first)) => answer(shard, &send, code, &progress.message_ids, first),
            (None, None) => unreachable!("a batch has at least one record"),
            (Some(error), _) => refuse(shard, &send, error),
        },
    }
    Some(send.taken)
}

impl BatchProgress {
    fn add(&mut self, item: &Item, store_host: std::net::SocketAddr) {
        let left = self.records_left.checked_sub(1);
        self.records_left = left.expect("as many records come back as were sent");
        if let Some(error) = &item.error {
            self.error = Some(*error);
            return;
        }
        self.first_queue_offset.get_or_insert(item.queue_offset);
        if !self.message_ids.is_empty() {
            self.message_ids.push(',');
        }
        append_message_id(&mut self.message_ids, store_host, item.log_offset);
    }
}

fn answer(shard: &Shard, send: &PendingSend, code: i32, message_id: &str, queue_offset: u64) {
    let views = shard.views.borrow();
    let settings = views.settings.value();
    let handle = send.recall_handle.as_deref();
    let fields = [
        (MSG_REGION, Value::Str(&settings.region_id)),
        (TRACE_ON, Value::Bool(settings.trace_on)),
        ("msgId", Value::Str(message_id)),
        ("queueId", Value::I32(send.queue_id)),
        ("queueOffset", Value::I64(queue_offset as i64)),
        ("transactionId", Value::Bytes(send.unique_key.as_bytes())),
        ("recallHandle", Value::Str(handle.unwrap_or_default())),
    ];
    // The last one only if there is one.
    let fields = &fields[..fields.len() - usize::from(handle.is_none())];
    shard.connections.reply(send.conn, |queued| {
        write_response(queued, send.asked, code, None, fields, &[]);
    });
}

fn refuse(shard: &Shard, send: &PendingSend, error: &AppendError) {
    let refusal = refusal(&shard.shared.store, error);
    shard.connections.reply(send.conn, |queued| {
        write_response(
            queued,
            send.asked,
            refusal.code,
            Some(&refusal.remark),
            &[],
            &[],
        );
    });
}

fn refusal(store: &Store, error: &AppendError) -> Refusal {
    match (error, store.poison()) {
        (AppendError::TooLarge { .. }, _) => Refusal {
            code: response::MESSAGE_ILLEGAL,
            remark: error.to_string(),
        },
        (AppendError::Poisoned, Some(why)) => not_available(why),
        _ => not_available(error),
    }
}

/// A code that makes clients try another broker.
pub fn not_available(why: impl Display) -> Refusal {
    Refusal {
        code: response::SERVICE_NOT_AVAILABLE,
        remark: format!("service not available now: {why}"),
    }
}
