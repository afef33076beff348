//! The topic table as bodies of registrations, each below a bound.
//!
//! What a name server does with a piece, stock ones of 4.9 and 5.x included: it adds and replaces the topics named and takes
//! nothing away. But 4.9 drops a body whose data version it has stored already, and 5.x then adds only unknown topics.
//! So every piece but the last carries an interim version of its own, and the last one the true version: a registration that
//! breaks off leaves a version nobody confirms, and is done again.

use std::sync::Arc;

use protocol::body::topic_config::{DataVersion, TopicConfig};
use protocol::permission;

use super::{PieceLimits, Snapshot};

/// A table of more topics is put into JSON off the core: 256 topics take less than a millisecond.
const INLINE_TOPICS_MAX: usize = 256;
/// More pieces than this are never needed: they would be a table of 4 GiB.
const PIECES_MAX: i64 = 4096;

/// One table on its way out.
pub(super) struct Pieces {
    plan: Arc<Plan>,
    limits: PieceLimits,
    next: usize,
    number: i64,
}

pub(super) struct Piece {
    pub body: Vec<u8>,
    pub is_last: bool,
}

struct Plan {
    /// By name, so that a table is cut into the same pieces every time.
    topics: Vec<Arc<TopicConfig>>,
    version: DataVersion,
    broker_permission: i32,
}

impl Pieces {
    /// All topics of the table.
    pub(super) async fn of(snapshot: Snapshot, limits: PieceLimits) -> Pieces {
        let plan = if snapshot.topics.len() <= INLINE_TOPICS_MAX {
            Plan::of(&snapshot)
        } else {
            reactor::offload_bulk("sort-topics", move || Plan::of(&snapshot)).await
        };
        Pieces {
            plan: Arc::new(plan),
            limits,
            next: 0,
            number: 0,
        }
    }

    /// Some topics under the table's version: a change to a registration that is complete.
    pub(super) fn of_changed(
        snapshot: &Snapshot,
        topics: Vec<Arc<TopicConfig>>,
        limits: PieceLimits,
    ) -> Pieces {
        let plan = Plan {
            topics,
            version: snapshot.version,
            broker_permission: snapshot.broker_permission,
        };
        Pieces {
            plan: Arc::new(plan),
            limits,
            next: 0,
            number: 0,
        }
    }

    pub(super) async fn next(&mut self) -> Piece {
        self.number += 1;
        assert!(
            self.number < PIECES_MAX,
            "a table in more than {PIECES_MAX} pieces"
        );
        let (from, number, limits) = (self.next, self.number, self.limits);
        let (body, next) = if self.plan.topics.len() - from <= INLINE_TOPICS_MAX {
            self.plan.encode(from, number, limits)
        } else {
            let plan = self.plan.clone();
            reactor::offload_bulk("encode-registration", move || {
                plan.encode(from, number, limits)
            })
            .await
        };
        assert!(
            next > from || self.plan.topics.is_empty(),
            "every piece takes at least one topic"
        );
        self.next = next;
        Piece {
            body,
            is_last: next == self.plan.topics.len(),
        }
    }
}

impl Plan {
    fn of(snapshot: &Snapshot) -> Plan {
        let mut topics: Vec<_> = snapshot.topics.values().cloned().collect();
        topics.sort_unstable_by(|a, b| a.topic_name.cmp(&b.topic_name));
        Plan {
            topics,
            version: snapshot.version,
            broker_permission: snapshot.broker_permission,
        }
    }

    /// The body that starts with topic `from`, and the topic the next one starts with.
    fn encode(&self, from: usize, number: i64, limits: PieceLimits) -> (Vec<u8>, usize) {
        let mut out =
            b"{\"filterServerList\":[],\"topicConfigSerializeWrapper\":{\"topicConfigTable\":{"
                .to_vec();
        let mut next = from;
        for topic in &self.topics[from..] {
            if next > from {
                if out.len() >= limits.bytes_max || next - from >= limits.topics_max {
                    break;
                }
                out.push(b',');
            }
            append_json(&mut out, &topic.topic_name);
            out.push(b':');
            match permitted(topic, self.broker_permission) {
                None => append_json(&mut out, &**topic),
                Some(reduced) => append_json(&mut out, &reduced),
            }
            next += 1;
        }
        let version = if next == self.topics.len() {
            self.version
        } else {
            interim(self.version, number)
        };
        out.extend_from_slice(b"},\"dataVersion\":");
        append_json(&mut out, &version);
        out.extend_from_slice(b",\"mappingDataVersion\":");
        append_json(&mut out, &DataVersion::default());
        out.extend_from_slice(
            b",\"topicQueueMappingDetailMap\":{},\"topicQueueMappingInfoMap\":{}}}",
        );
        (out, next)
    }
}

/// A version no table ever has: its counter is negative. Another one for every piece of every version.
fn interim(version: DataVersion, number: i64) -> DataVersion {
    let counter = version.counter.max(0).wrapping_mul(PIECES_MAX) & (i64::MAX >> 1);
    DataVersion {
        counter: -(counter + number),
        ..version
    }
}

/// The topic with the broker's permission taken into account, where that changes it.
pub(super) fn permitted(topic: &TopicConfig, broker_permission: i32) -> Option<TopicConfig> {
    let reduced = topic.perm & broker_permission;
    let is_limited = broker_permission & permission::READ_WRITE != permission::READ_WRITE;
    (is_limited && reduced != topic.perm).then(|| TopicConfig {
        perm: reduced,
        ..topic.clone()
    })
}

fn append_json(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("strings and numbers are JSON and memory takes them");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use protocol::body::register::RegisterBrokerBody;

    use super::*;

    const VERSION: DataVersion = DataVersion {
        counter: 7,
        state_version: 0,
        timestamp: 1_700_000_000_000,
    };

    fn plan(count: usize) -> Plan {
        let topics = (0..count).map(|number| {
            let topic_name = format!("topic-{number:06}");
            Arc::new(TopicConfig {
                topic_name,
                read_queue_nums: number as i32,
                ..TopicConfig::default()
            })
        });
        Plan {
            topics: topics.collect(),
            version: VERSION,
            broker_permission: permission::READ_WRITE,
        }
    }

    fn all(plan: &Plan, limits: PieceLimits) -> Vec<RegisterBrokerBody> {
        let mut bodies = Vec::new();
        let mut from = 0;
        loop {
            let (body, next) = plan.encode(from, bodies.len() as i64 + 1, limits);
            bodies.push(protocol::json::from_slice(&body).expect("a body is JSON"));
            from = next;
            if from == plan.topics.len() {
                return bodies;
            }
        }
    }

    #[test]
    fn a_small_table_is_one_piece_with_the_true_version() {
        let bodies = all(&plan(10), PieceLimits::default());
        assert_eq!(bodies.len(), 1);
        assert_eq!(
            bodies[0].topic_config_serialize_wrapper.data_version,
            VERSION
        );
    }

    #[test]
    fn an_empty_table_is_one_piece() {
        let bodies = all(&plan(0), PieceLimits::default());
        assert_eq!(bodies.len(), 1);
        assert!(
            bodies[0]
                .topic_config_serialize_wrapper
                .topic_config_table
                .is_empty()
        );
    }

    #[test]
    fn a_piece_stays_below_a_quarter_of_a_frame_with_any_limit_we_set() {
        let (body, next) = plan(60_000).encode(0, 1, PieceLimits::default());
        assert!(body.len() < protocol::frame::FRAME_BYTES_MAX / 4);
        assert!(next > 2_000 && next < 60_000);
    }

    #[test]
    fn a_broker_that_may_not_be_written_registers_topics_that_may_not() {
        let mut plan = plan(2);
        plan.broker_permission = permission::READ;
        let bodies = all(&plan, PieceLimits::default());
        let table = &bodies[0].topic_config_serialize_wrapper.topic_config_table;
        assert!(table.values().all(|topic| topic.perm == permission::READ));
    }

    proptest! {
        #[test]
        fn pieces_add_up_to_the_table_and_no_two_share_a_version(
            count in 0usize..200, topics_max in 1usize..50, bytes_max in 1usize..5000, counter in 0i64..1000,
        ) {
            let mut plan = plan(count);
            plan.version.counter = counter;
            let bodies = all(&plan, PieceLimits { bytes_max, topics_max });
            let mut table = BTreeMap::new();
            let mut versions = Vec::new();
            for body in bodies {
                let piece = body.topic_config_serialize_wrapper;
                prop_assert!(piece.topic_config_table.len() <= topics_max);
                table.extend(piece.topic_config_table);
                versions.push(piece.data_version);
            }
            prop_assert_eq!(table.len(), count);
            prop_assert_eq!(versions.last(), Some(&plan.version));
            let interim = &versions[..versions.len() - 1];
            prop_assert!(interim.iter().all(|version| version.counter < 0));
            let mut sorted: Vec<_> = interim.iter().map(|version| version.counter).collect();
            sorted.dedup();
            prop_assert_eq!(sorted.len(), interim.len());
        }
    }
}
