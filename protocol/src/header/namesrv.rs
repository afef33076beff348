//! Name server: codes 100 to 106, 205, 216, 217, 219, 224, 322, 327.

use std::borrow::Cow;

use super::header;
use crate::command::Command;
use crate::version;

header! {
    /// 103: a broker and its topics. The answer has `haServerAddr` and `masterAddr`.
    pub struct RegisterBroker<'a> {
        broker_name: Cow<'a, str> = "brokerName",
        broker_addr: Cow<'a, str> = "brokerAddr",
        cluster_name: Cow<'a, str> = "clusterName",
        ha_server_addr: Option<Cow<'a, str>> = "haServerAddr",
        broker_id: i64 = "brokerId",
        /// After how long without a word the broker counts as gone (5.x).
        heartbeat_timeout_ms: Option<i64> = "heartbeatTimeoutMillis",
        enable_acting_master: Option<bool> = "enableActingMaster",
        compressed: Option<bool> = "compressed",
        /// CRC-32 of the body as sent; 0 or absent: not checked.
        body_crc: Option<i32> = "bodyCrc32",
    }
}

header! {
    /// 104 (unregister) and 322 (does the name server have this data version?).
    pub struct Broker<'a> {
        broker_name: Cow<'a, str> = "brokerName",
        broker_addr: Cow<'a, str> = "brokerAddr",
        cluster_name: Cow<'a, str> = "clusterName",
        broker_id: i64 = "brokerId",
    }
}

header! {
    /// 205, 327: take a broker out of sending, put it back. The answers have `wipeTopicCount`
    /// and `addTopicCount`.
    pub struct BrokerName<'a> {
        broker_name: Cow<'a, str> = "brokerName",
    }
}

header! {
    /// 105: the route of a topic.
    pub struct Route<'a> {
        topic: Cow<'a, str> = "topic",
        accept_standard_json_only: Option<bool> = "acceptStandardJsonOnly",
    }
}

impl Route<'_> {
    /// Which spelling of JSON the asker reads. Clients before 4.9.4 parse with fastjson and are
    /// used to its unquoted map keys.
    pub fn dialect(&self, command: &Command<'_>) -> crate::json::Dialect {
        if command.version >= version::V4_9_4 || self.accept_standard_json_only == Some(true) {
            crate::json::Dialect::Strict
        } else {
            crate::json::Dialect::Fastjson1
        }
    }
}

header! {
    /// 100: set a value of the key-value table.
    pub struct PutKv<'a> {
        namespace: Cow<'a, str> = "namespace",
        key: Cow<'a, str> = "key",
        value: Cow<'a, str> = "value",
    }
}

header! {
    /// 101, 102: one value. The answer to 101 has `value`, or is QUERY_NOT_FOUND.
    pub struct Kv<'a> {
        namespace: Cow<'a, str> = "namespace",
        key: Cow<'a, str> = "key",
    }
}

header! {
    /// 219: all values of a namespace.
    pub struct KvNamespace<'a> {
        namespace: Cow<'a, str> = "namespace",
    }
}

header! {
    /// 216, 217: a topic, and for deleting from one cluster only its name.
    pub struct NameserverTopic<'a> {
        topic: Cow<'a, str> = "topic",
        cluster_name: Option<Cow<'a, str>> = "clusterName",
    }
}

header! {
    /// 224: the topics of a cluster.
    pub struct Cluster<'a> {
        cluster: Cow<'a, str> = "cluster",
    }
}
