//! A batch: several messages of one queue in one request, stored one by one at neighbouring offsets.

use protocol::code::response;
use protocol::names;
use protocol::record::Draft;
use protocol::{Text, batch, sysflag};

use super::properties::{Facts, tag_hash_of};
use super::{Sending, limits};
use crate::handlers::missing::NotDone;
use crate::shard::sends::{BatchProgress, UniqueKey};

pub fn take(send: &Sending<'_>) -> Result<(), NotDone> {
    let topic = send.topic.name();
    if topic.len() > limits::TOPIC_BYTES_MAX {
        let remark = format!("message topic length too long {}", topic.len());
        return Err(NotDone::refused(response::MESSAGE_ILLEGAL, remark));
    }
    if names::is_retry_topic(topic) {
        let remark = format!("batch request does not support retry group {topic}");
        return Err(NotDone::refused(response::MESSAGE_ILLEGAL, remark));
    }
    limits::check_body(send.command.body, send.settings)?;
    let records = count(send)?;
    let mut facts = check_outer(send)?;
    let unique_key = facts.unique_key.take();
    let unique_key = unique_key.unwrap_or_else(|| UniqueKey::new(&[]));

    let progress = Box::new(BatchProgress {
        records_left: records,
        ..BatchProgress::default()
    });
    let token = send.expect_answer(unique_key, None, Some(progress));
    let queue = send.topic.queue(&send.shard.shared.store, send.queue_id);
    let whole = Draft {
        topic,
        queue_id: send.queue_id as i32,
        flag: 0,
        sys_flag: send.sys_flag(),
        born_ms: send.header.born_ms,
        born_host: send.connection.peer(),
        store_host: send.settings.advertised(),
        reconsume_times: send.header.reconsume_times,
        prepared_transaction_offset: 0,
        properties: Text::plain(&[]),
        body: &[],
    };
    send.shard.outgoing.add(send.waits(&facts), |open| {
        for inner in batch::iter(send.command.body).flatten() {
            let draft = Draft {
                flag: inner.flag,
                properties: Text::plain(inner.properties),
                body: inner.body,
                ..whole
            };
            let tag_hash = tag_hash_of(inner.properties);
            open.push(&queue, tag_hash, token, |record| draft.append_to(record));
        }
    });
    Ok(())
}

/// All of the batch is looked at before any of it is taken.
fn count(send: &Sending<'_>) -> Result<u32, NotDone> {
    let mut records = 0;
    for inner in batch::iter(send.command.body) {
        let inner = inner
            .map_err(|error| NotDone::refused(response::MESSAGE_ILLEGAL, error.to_string()))?;
        limits::check_properties(inner.properties, false, send.settings)?;
        records += 1;
    }
    Ok(records)
}

/// A batch is neither delayed nor part of a transaction. Its own properties are not stored.
fn check_outer(send: &Sending<'_>) -> Result<Facts, NotDone> {
    let mut sent = send.shard.scratch.properties.borrow_mut();
    sent.clear();
    send.header.properties.append_to(&mut sent);
    let facts = Facts::read(&sent);
    let in_transaction = sysflag::transaction(send.header.sys_flag) != sysflag::TRANSACTION_NONE;
    if facts.delay_level > 0 || facts.wish.is_any() || in_transaction || facts.prepared {
        return Err(limits::illegal(send.settings));
    }
    limits::check_kind(&facts, send.settings)?;
    Ok(facts)
}
