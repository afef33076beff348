//! The tables as JSON for clients, tools and brokers, byte by byte as a stock name server writes them.
//! Written straight into the answer's body: routes are what a name server is asked for all day.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::json::Dialect;

use super::java_order::{sort_by_name, sort_in};
use super::{Group, MASTER_ID, Routes};
use crate::json::{append_number, append_string, separate};

/// A stock name server makes its table of broker names with this many buckets, ...
const BROKER_BUCKETS: usize = 256;
/// ... and that of clusters with these.
const CLUSTER_BUCKETS: usize = 64;

impl Routes {
    /// Appends the route of a topic. False, and nothing appended, if no broker serves it.
    pub fn append_route(
        &self,
        out: &mut Vec<u8>,
        topic: &str,
        order_conf: Option<&str>,
        dialect: Dialect,
    ) -> bool {
        let entries = self.topics.get(topic).unwrap_or_default();
        let mut serving: Vec<_> = entries
            .iter()
            .filter_map(|(group, queues)| Some((self.groups.get(group)?, queues)))
            .collect();
        if serving.is_empty() {
            return false;
        }
        sort_by_name(&mut serving, |(group, _)| &group.name);

        out.extend_from_slice(b"{\"brokerDatas\":[");
        for (number, (group, _)) in serving.iter().enumerate() {
            separate(out, number);
            append_group(out, group, dialect);
        }
        out.extend_from_slice(b"],\"filterServerTable\":{}");
        if let Some(order_conf) = order_conf {
            out.extend_from_slice(b",\"orderTopicConf\":");
            append_string(out, order_conf);
        }
        out.extend_from_slice(b",\"queueDatas\":[");
        for (number, (group, queues)) in serving.iter().enumerate() {
            separate(out, number);
            out.extend_from_slice(b"{\"brokerName\":");
            append_string(out, &group.name);
            append_number(out, b",\"perm\":", queues.permission);
            append_number(out, b",\"readQueueNums\":", queues.read);
            append_number(out, b",\"topicSysFlag\":", queues.sys_flag);
            append_number(out, b",\"writeQueueNums\":", queues.write);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
        true
    }

    /// Appends all groups and clusters.
    pub fn append_clusters(&self, out: &mut Vec<u8>) {
        let mut groups: Vec<&Group> = self.groups.values().collect();
        sort_in(&mut groups, BROKER_BUCKETS, |group| &group.name);
        out.extend_from_slice(b"{\"brokerAddrTable\":{");
        for (number, group) in groups.iter().enumerate() {
            separate(out, number);
            append_string(out, &group.name);
            out.push(b':');
            append_group(out, group, Dialect::Fastjson1);
        }
        out.extend_from_slice(b"},\"clusterAddrTable\":{");
        let mut clusters: Vec<_> = self.clusters.iter().collect();
        sort_in(&mut clusters, CLUSTER_BUCKETS, |(cluster, _)| cluster);
        for (number, (cluster, names)) in clusters.iter().enumerate() {
            separate(out, number);
            append_string(out, cluster);
            out.extend_from_slice(b":[");
            let mut names: Vec<_> = names.iter().collect();
            sort_by_name(&mut names, |name| name);
            for (number, name) in names.into_iter().enumerate() {
                separate(out, number);
                append_string(out, name);
            }
            out.push(b']');
        }
        out.extend_from_slice(b"}}");
    }

    /// Appends the addresses of one group.
    pub fn append_member_group(&self, out: &mut Vec<u8>, cluster: &str, broker_name: &str) {
        let group = self
            .group_numbers
            .get(broker_name)
            .map(|no| &self.groups[no]);
        let none = BTreeMap::new();
        out.extend_from_slice(b"{\"brokerMemberGroup\":{\"brokerAddrs\":");
        append_addrs(
            out,
            group.map_or(&none, |group| &group.addrs),
            Dialect::Fastjson1,
        );
        out.extend_from_slice(b",\"brokerName\":");
        append_string(out, broker_name);
        out.extend_from_slice(b",\"cluster\":");
        append_string(out, cluster);
        out.extend_from_slice(b"}}");
    }

    /// Appends the topics every cluster has by its nature: one of its own name and one of each broker's name.
    pub fn append_system_topics(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        let first = self.groups.values().next();
        if let Some(addr) = first.and_then(|group| {
            group
                .addrs
                .get(&MASTER_ID)
                .or_else(|| group.addrs.values().next())
        }) {
            out.extend_from_slice(b"\"brokerAddr\":");
            append_string(out, addr);
            out.push(b',');
        }
        out.extend_from_slice(b"\"topicList\":[");
        let names = self
            .clusters
            .iter()
            .flat_map(|(cluster, names)| std::iter::once(cluster).chain(names));
        for (number, name) in names.enumerate() {
            separate(out, number);
            append_string(out, name);
        }
        out.extend_from_slice(b"]}");
    }
}

fn append_group(out: &mut Vec<u8>, group: &Group, dialect: Dialect) {
    out.extend_from_slice(b"{\"brokerAddrs\":");
    append_addrs(out, &group.addrs, dialect);
    out.extend_from_slice(b",\"brokerName\":");
    append_string(out, &group.name);
    out.extend_from_slice(b",\"cluster\":");
    append_string(out, &group.cluster);
    out.extend_from_slice(b",\"enableActingMaster\":");
    out.extend_from_slice(if group.acting_master {
        b"true"
    } else {
        b"false"
    });
    if let Some(zone) = &group.zone {
        out.extend_from_slice(b",\"zoneName\":");
        append_string(out, zone);
    }
    out.push(b'}');
}

fn append_addrs(out: &mut Vec<u8>, addrs: &BTreeMap<i64, Arc<str>>, dialect: Dialect) {
    out.push(b'{');
    for (number, (id, addr)) in addrs.iter().enumerate() {
        separate(out, number);
        match dialect {
            Dialect::Strict => out.extend_from_slice(format!("\"{id}\":").as_bytes()),
            Dialect::Fastjson1 => out.extend_from_slice(format!("{id}:").as_bytes()),
        }
        append_string(out, addr);
    }
    out.push(b'}');
}
