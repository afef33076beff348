//! One queue's entries as `mqadmin queryCq` shows them.

use std::rc::Rc;
use std::sync::Arc;

use engine::{Queue, QueueOffset, ReadLimits, Store};
use protocol::Command;
use protocol::body::Body;
use protocol::body::figures::{ConsumeQueueEntries, ConsumeQueueEntry};
use protocol::body::heartbeat::SubscriptionData;
use protocol::code::response;
use protocol::header::admin::ConsumeQueueQuery;
use protocol::json::Dialect;
use protocol::properties::{self, tag_hash};
use protocol::record::{View, views};

use crate::coordinator::Coordinator;
use crate::filter::tags::TagFilter;
use crate::handlers::{Answer, Handled, Reply, refuse};
use crate::reading::{self, At};

/// One answer shows no more.
const ENTRIES_MAX: usize = 1024;
const READ: ReadLimits = reading::stretch(32, 256 << 10);

/// 321. The entries are read from the messages: the index knows nothing else than they do.
pub fn entries(coordinator: &Rc<Coordinator>, command: &Command<'_>) -> Handled {
    let header = ConsumeQueueQuery::from(command)?;
    let (topic, queue_id) = (&*header.topic, header.queue_id);
    let store = Arc::clone(&coordinator.shared.store);
    let queue = u32::try_from(queue_id)
        .ok()
        .and_then(|id| store.find_queue(topic, id))
        .ok_or_else(|| {
            let remark = format!("{queue_id}@{topic} is not exist!");
            refuse(response::SYSTEM_ERROR, remark)
        })?;
    let mut answer = ConsumeQueueEntries {
        max_queue_index: signed(queue.max_offset()),
        min_queue_index: signed(queue.min_offset()),
        ..ConsumeQueueEntries::default()
    };
    if let Some(group) = header.group.as_deref().filter(|group| !group.is_empty()) {
        let tables = coordinator.tables();
        let live = tables.clients.consumer_group(group);
        let subscription = live.and_then(|group| group.subscriptions.get(topic));
        answer.subscription_data = subscription.cloned();
        if subscription.is_none() {
            answer.filter_data = Some(format!("{group}@{topic} is not online!"));
        }
    }
    let filter = answer.subscription_data.as_ref().map(tag_filter);
    let from = u64::try_from(header.from).unwrap_or(0);
    let count = usize::try_from(header.count).unwrap_or(0).min(ENTRIES_MAX);
    Ok(Reply::later(async move {
        match read(&store, &queue, QueueOffset(from), count, filter.as_ref()).await {
            Ok(entries) => answer.queue_data = entries,
            Err(error) => return Answer::code(response::SYSTEM_ERROR, error.to_string()),
        }
        Answer::with_body(answer.to_json(Dialect::Fastjson1))
    }))
}

async fn read(
    store: &Arc<Store>,
    queue: &Queue,
    from: QueueOffset,
    count: usize,
    filter: Option<&TagFilter>,
) -> std::io::Result<Vec<ConsumeQueueEntry>> {
    let (mut entries, mut at, mut records) = (Vec::new(), from, Vec::new());
    while entries.len() < count {
        at = match reading::read(store, queue, at, &READ, &mut records).await? {
            At::Records(next) => QueueOffset(next),
            At::End | At::Outside => break,
        };
        let read = views(&records).map_while(Result::ok);
        let room = count - entries.len();
        entries.extend(read.take(room).map(|view| entry(&view, filter)));
        reactor::yield_now().await;
    }
    Ok(entries)
}

fn entry(view: &View<'_>, filter: Option<&TagFilter>) -> ConsumeQueueEntry {
    let tags = view.property(properties::TAGS);
    let hash = tags.map_or(0, |tags| tag_hash(&String::from_utf8_lossy(tags)));
    ConsumeQueueEntry {
        eval: filter.is_some_and(|filter| filter.accepts(hash)),
        physic_offset: signed(view.log_offset),
        physic_size: i32::try_from(view.bytes.len()).unwrap_or(i32::MAX),
        tags_code: i64::from(hash),
    }
}

fn tag_filter(subscription: &SubscriptionData) -> TagFilter {
    TagFilter::from_hashes(subscription.code_set.iter().copied())
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
