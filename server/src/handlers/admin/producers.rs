//! Everybody who has registered as a producer.

use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::body::Body;
use protocol::body::figures::{ProducerInfo, ProducerTable};
use protocol::json::Dialect;

use crate::coordinator::{self, Coordinator};
use crate::handlers::{Answer, Handled, Reply};

/// 328
pub fn all(coordinator: &Rc<Coordinator>) -> Handled {
    let (wall_ms, now_ms) = (reactor::wall_ms(), coordinator::now_ms());
    let mut data = BTreeMap::new();
    let tables = coordinator.tables();
    for (group, members) in tables.clients.producer_groups() {
        let members = members.values().map(|client| ProducerInfo {
            client_id: client.id.clone(),
            language: client.language.name().to_owned(),
            last_update_timestamp: wall_ms
                .saturating_sub_unsigned(now_ms.saturating_sub(client.seen_ms)),
            remote_ip: format!("/{}", client.peer),
            version: client.version,
        });
        data.insert(group.to_string(), members.collect());
    }
    let table = ProducerTable { data };
    Ok(Reply::later(async move {
        let body = reactor::offload("producer table", move || table.to_json(Dialect::Fastjson1));
        Answer::with_body(body.await)
    }))
}
