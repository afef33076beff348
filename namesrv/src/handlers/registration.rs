//! Brokers that come, stay and go: registration whole or in pieces, the question whether it is still current, and leaving.
//!
//! A piece is a registration that names some of the topics: nothing is taken away because it is not named. So a table of
//! any size registers in pieces, and a changed topic alone. The stored version is the one of the last piece.

use std::time::Duration;

use protocol::Command;
use protocol::body::register::RegisterBrokerBody;
use protocol::body::route::TopicRouteData;
use protocol::body::topic_config::{DataVersion, TopicConfig};
use protocol::code::response;
use protocol::header::namesrv::{Broker, NameserverTopic, RegisterBroker};

use super::{Answer, Context, Outcome};
use crate::kv_config::ORDER_TOPIC_CONFIG;
use crate::routes::{Admission, Queues, Registration, Topic};
use crate::server::SLICE;

/// A body larger than this is decoded off the core: parsing takes about a millisecond per 100 KiB.
const INLINE_BODY_BYTES_MAX: usize = 128 << 10;
/// The field by which a broker names its zone.
const ZONE_NAME: &str = "__ZONE_NAME";

/// What is kept of a registration's body.
struct Table {
    version: DataVersion,
    topics: Vec<Topic>,
}

pub(super) async fn register(context: &Context, command: &Command<'_>) -> Outcome {
    let header = RegisterBroker::from(command)?;
    let body_crc = header.body_crc.unwrap_or_default();
    if body_crc != 0 && body_crc != crc(command.body) {
        tracing::warn!(peer = %context.peer, broker = %header.broker_name, "registration with a wrong checksum");
        return Err(Answer::refusal(response::SYSTEM_ERROR, "crc32 not match"));
    }
    let table = decode(command.body, header.compressed.unwrap_or_default()).await?;

    let zone = command.fields.string(ZONE_NAME);
    let registration = Registration {
        cluster: &header.cluster_name,
        broker_name: &header.broker_name,
        broker_addr: &header.broker_addr,
        broker_id: header.broker_id,
        ha_addr: header.ha_server_addr.as_deref().unwrap_or_default(),
        zone: zone.as_deref(),
        silence_max: header
            .heartbeat_timeout_ms
            .map(|ms| Duration::from_millis(ms.max(0).cast_unsigned())),
        acting_master: header.enable_acting_master,
        version: table.version,
        topics_in_body: table.topics.len(),
        connection: context.connection,
    };
    // From here on the end of this connection is the end of the broker.
    context.registered.set(true);
    let admission = context
        .shared
        .routes
        .borrow_mut()
        .admit(&registration, reactor::turn_time())?;
    context.shared.sweep_if_wanted();
    let Admission::Admitted(ticket) = admission else {
        tracing::warn!(peer = %context.peer, broker = %header.broker_name, "outdated registration ignored");
        return Ok(Answer::with_body(order_config(context)));
    };

    let mut topics = table.topics.into_iter();
    loop {
        let slice: Vec<Topic> = topics.by_ref().take(SLICE).collect();
        context.shared.routes.borrow_mut().apply(&ticket, &slice)?;
        if topics.len() == 0 {
            break;
        }
        reactor::yield_now().await;
    }
    let registered = context
        .shared
        .routes
        .borrow_mut()
        .seal(ticket, reactor::turn_time())?;

    let mut answer = Answer::with_body(order_config(context));
    let addrs = [
        ("haServerAddr", registered.ha_addr),
        ("masterAddr", registered.master_addr),
    ];
    answer.fields.extend(
        addrs
            .into_iter()
            .filter_map(|(name, addr)| Some((name, addr?.to_string()))),
    );
    Ok(answer)
}

async fn decode(body: &[u8], compressed: bool) -> Result<Table, Answer> {
    let decoded = if body.len() <= INLINE_BODY_BYTES_MAX && !compressed {
        Table::decode(body, compressed)
    } else {
        let body = body.to_vec();
        reactor::offload_bulk("decode-registration", move || {
            Table::decode(&body, compressed)
        })
        .await
    };
    decoded.map_err(|error| {
        Answer::refusal(
            response::SYSTEM_ERROR,
            format!("Failed to decode RegisterBrokerBody: {error}"),
        )
    })
}

impl Table {
    fn decode(body: &[u8], compressed: bool) -> Result<Table, String> {
        let body = match (body, compressed) {
            ([], _) => RegisterBrokerBody::default(),
            (body, true) => {
                RegisterBrokerBody::from_compressed(body).map_err(|error| error.to_string())?
            }
            (body, false) => protocol::json::from_slice(body).map_err(|error| error.to_string())?,
        };
        let table = body.topic_config_serialize_wrapper;
        let topics = table
            .topic_config_table
            .into_values()
            .map(Topic::from)
            .collect();
        Ok(Table {
            version: table.data_version,
            topics,
        })
    }
}

impl From<TopicConfig> for Topic {
    fn from(config: TopicConfig) -> Topic {
        let queues = Queues {
            read: config.read_queue_nums,
            write: config.write_queue_nums,
            permission: config.perm,
            sys_flag: config.topic_sys_flag,
        };
        Topic {
            name: config.topic_name,
            queues,
        }
    }
}

fn order_config(context: &Context) -> Vec<u8> {
    let mut body = Vec::new();
    if context
        .shared
        .live
        .borrow()
        .return_order_topic_config_to_broker
    {
        context
            .shared
            .kv
            .borrow()
            .append_namespace(&mut body, ORDER_TOPIC_CONFIG);
    }
    body
}

pub(super) fn query_version(context: &Context, command: &Command<'_>) -> Outcome {
    let header = Broker::from(command)?;
    let asked: DataVersion = protocol::json::from_slice(command.body)
        .map_err(|error| Answer::refusal(response::SYSTEM_ERROR, error.to_string()))?;
    let mut routes = context.shared.routes.borrow_mut();
    routes.heard(
        &header.cluster_name,
        &header.broker_addr,
        reactor::turn_time(),
    );
    let known = routes.version(&header.cluster_name, &header.broker_addr);
    let mut answer = Answer::with_field("changed", (known != Some(asked)).to_string());
    if let Some(known) = known {
        answer.body = serde_json::to_vec(&known).expect("three numbers are JSON");
    }
    Ok(answer)
}

pub(super) fn heartbeat(context: &Context, command: &Command<'_>) -> Outcome {
    let cluster = command.fields.required_string("clusterName")?;
    let addr = command.fields.required_string("brokerAddr")?;
    context
        .shared
        .routes
        .borrow_mut()
        .heard(&cluster, &addr, reactor::turn_time());
    Ok(Answer::done())
}

pub(super) fn unregister(context: &Context, command: &Command<'_>) -> Outcome {
    let header = Broker::from(command)?;
    let (cluster, addr, name) = (
        &header.cluster_name,
        &header.broker_addr,
        &header.broker_name,
    );
    let known = context
        .shared
        .routes
        .borrow_mut()
        .unregister(cluster, addr, name);
    context.shared.sweep_if_wanted();
    tracing::info!(%cluster, broker = %name, id = header.broker_id, address = %addr, known, "broker unregistered");
    Ok(Answer::done())
}

pub(super) fn register_topic(context: &Context, command: &Command<'_>) -> Outcome {
    let topic = NameserverTopic::from(command)?.topic;
    let route: TopicRouteData = protocol::json::from_slice(command.body)
        .map_err(|error| Answer::refusal(response::SYSTEM_ERROR, error.to_string()))?;
    let queues: Vec<_> = route
        .queue_datas
        .into_iter()
        .map(|data| {
            let queues = Queues {
                read: data.read_queue_nums,
                write: data.write_queue_nums,
                permission: data.perm,
                sys_flag: data.topic_sys_flag,
            };
            (data.broker_name, queues)
        })
        .collect();
    if !context
        .shared
        .routes
        .borrow_mut()
        .register_topic(&topic, &queues)?
    {
        tracing::warn!(%topic, peer = %context.peer, "topic of an unknown broker ignored");
    }
    Ok(Answer::done())
}

/// The checksum of a body as brokers send it: 31 bits, so that it is never negative.
fn crc(body: &[u8]) -> i32 {
    (crc32fast::hash(body) & 0x7fff_ffff).cast_signed()
}
