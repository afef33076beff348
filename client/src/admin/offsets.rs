//! Where a group stands: set elsewhere, or as another group stands.

use std::collections::BTreeMap;

use protocol::Value;
use protocol::body::consumer::ResetOffsets;
use protocol::code::{request, response};
use serde::Serialize;

use super::{Admin, QueueStatus, is_code};
use crate::error::{Error, Result};

/// Where a group is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The oldest message that is there.
    Earliest,
    /// With what comes from now on: everything before is skipped.
    Latest,
    /// The first message stored at or after a time, in milliseconds since 1970.
    Time(i64),
    /// This message, in every queue that is meant.
    Offset(i64),
}

/// A queue in which a group was moved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Moved {
    pub broker: String,
    pub queue: i32,
    /// Where it was; unknown if the group had not begun.
    pub from: Option<i64>,
    pub to: i64,
}

/// What is asked of one broker.
struct Asked<'a> {
    group: &'a str,
    topic: &'a str,
    target: Target,
    queue: Option<i32>,
}

impl Admin {
    /// Where [`Admin::reset_offsets`] would move a group; nothing is moved.
    pub async fn plan_reset(
        &self,
        group: &str,
        topic: &str,
        target: Target,
        queue: Option<i32>,
    ) -> Result<Vec<Moved>> {
        let mut all = Vec::new();
        for (broker, address) in self.brokers_of(topic).await? {
            let places = self.places(&address, topic, target, queue).await?;
            all.extend(self.moves(&broker, &address, group, topic, places).await);
        }
        all.sort();
        Ok(all)
    }

    /// Moves a group in a topic, in all queues or in one of every broker. Members that are connected go on there at once;
    /// what they are at does not count any more.
    ///
    /// # Errors
    /// [`Error::NoRoute`] if there is no such topic, [`Error::Illegal`] for an offset outside a queue.
    pub async fn reset_offsets(
        &self,
        group: &str,
        topic: &str,
        target: Target,
        queue: Option<i32>,
    ) -> Result<Vec<Moved>> {
        let mut all = Vec::new();
        for (broker, address) in self.brokers_of(topic).await? {
            let asked = Asked {
                group,
                topic,
                target,
                queue,
            };
            let places = self.places(&address, topic, target, queue).await?;
            let before = self.committed_on(&address, group, topic).await;
            let told = match asked.timestamp() {
                Some(time_ms) => self.reset_by_time(&address, &asked, time_ms).await,
                None => self.reset_by_places(&address, &asked, &places).await,
            };
            let places = match told {
                Ok(told) => told,
                // Nobody is there to be told: the broker is.
                Err(error) if is_refusal(&error) => {
                    self.write_offsets(&address, group, topic, &places).await?;
                    places
                }
                Err(error) => return Err(error),
            };
            all.extend(places.into_iter().map(|(queue, to)| Moved {
                broker: broker.clone(),
                queue,
                from: before.get(&queue).copied(),
                to,
            }));
        }
        all.sort();
        Ok(all)
    }

    async fn moves(
        &self,
        broker: &str,
        address: &str,
        group: &str,
        topic: &str,
        places: BTreeMap<i32, i64>,
    ) -> Vec<Moved> {
        let before = self.committed_on(address, group, topic).await;
        let moved = |(queue, to): (i32, i64)| Moved {
            broker: broker.to_owned(),
            queue,
            from: before.get(&queue).copied(),
            to,
        };
        places.into_iter().map(moved).collect()
    }

    /// The offset meant in each queue of a broker.
    async fn places(
        &self,
        address: &str,
        topic: &str,
        target: Target,
        queue: Option<i32>,
    ) -> Result<BTreeMap<i32, i64>> {
        let mut places = BTreeMap::new();
        for status in self.topic_status_on(address, topic).await? {
            if queue.is_none_or(|queue| queue == status.queue) {
                let place = self.place(address, topic, target, &status).await?;
                places.insert(status.queue, place);
            }
        }
        match places.is_empty() {
            true => Err(Error::Illegal(format!(
                "{address} has no such queue of {topic}"
            ))),
            false => Ok(places),
        }
    }

    async fn place(
        &self,
        address: &str,
        topic: &str,
        target: Target,
        status: &QueueStatus,
    ) -> Result<i64> {
        let (min, max) = (status.min_offset, status.max_offset);
        match target {
            Target::Earliest => Ok(min),
            Target::Latest => Ok(max),
            Target::Offset(offset) if (min..=max).contains(&offset) => Ok(offset),
            Target::Offset(offset) => Err(Error::Illegal(format!(
                "offset {offset} is not within {min} to {max} of queue {} on {}",
                status.queue, status.broker
            ))),
            Target::Time(time_ms) => {
                let fields = [
                    ("topic", Value::Str(topic)),
                    ("queueId", Value::I32(status.queue)),
                    ("timestamp", Value::I64(time_ms)),
                ];
                let code = request::SEARCH_OFFSET_BY_TIMESTAMP;
                let answer = self.demand(address, code, &fields, b"").await?;
                answer.i64("offset", address)
            }
        }
    }

    async fn reset_by_time(
        &self,
        address: &str,
        asked: &Asked<'_>,
        time_ms: i64,
    ) -> Result<BTreeMap<i32, i64>> {
        let fields = [
            ("group", Value::Str(asked.group)),
            ("topic", Value::Str(asked.topic)),
            ("timestamp", Value::I64(time_ms)),
            ("isForce", Value::Bool(true)),
            ("queueId", Value::I32(-1)),
        ];
        self.tell_reset(address, &fields).await
    }

    async fn reset_by_places(
        &self,
        address: &str,
        asked: &Asked<'_>,
        places: &BTreeMap<i32, i64>,
    ) -> Result<BTreeMap<i32, i64>> {
        let mut told = BTreeMap::new();
        for (queue, offset) in places {
            let fields = [
                ("group", Value::Str(asked.group)),
                ("topic", Value::Str(asked.topic)),
                ("timestamp", Value::I64(-1)),
                ("isForce", Value::Bool(true)),
                ("queueId", Value::I32(*queue)),
                ("offset", Value::I64(*offset)),
            ];
            told.extend(self.tell_reset(address, &fields).await?);
        }
        // A broker that does not know this way has moved something else.
        match told == *places {
            true => Ok(told),
            false => Err(Error::Refused {
                code: response::REQUEST_CODE_NOT_SUPPORTED,
                remark: "it resets by time only".into(),
            }),
        }
    }

    async fn tell_reset(
        &self,
        address: &str,
        fields: &[(&str, Value<'_>)],
    ) -> Result<BTreeMap<i32, i64>> {
        let code = request::INVOKE_BROKER_TO_RESET_OFFSET;
        let answer = self.demand(address, code, fields, b"").await?;
        let reset = ResetOffsets::from_json(answer.command().body);
        let reset = reset.map_err(|error| Error::Broken {
            address: address.to_owned(),
            what: error.to_string(),
        })?;
        let place =
            |(queue, offset): (protocol::body::queue::MessageQueue, i64)| (queue.queue_id, offset);
        Ok(reset.offsets.into_iter().map(place).collect())
    }

    async fn write_offsets(
        &self,
        address: &str,
        group: &str,
        topic: &str,
        places: &BTreeMap<i32, i64>,
    ) -> Result<()> {
        for (queue, offset) in places {
            let fields = [
                ("consumerGroup", Value::Str(group)),
                ("topic", Value::Str(topic)),
                ("queueId", Value::I32(*queue)),
                ("commitOffset", Value::I64(*offset)),
            ];
            let code = request::UPDATE_CONSUMER_OFFSET;
            self.demand(address, code, &fields, b"").await?;
        }
        Ok(())
    }

    /// Where a group is in the queues of a broker that it has begun.
    async fn committed_on(&self, address: &str, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let mut committed = BTreeMap::new();
        let Ok(statuses) = self.topic_status_on(address, topic).await else {
            return committed;
        };
        for status in statuses {
            if let Ok(Some(offset)) = self.committed(address, group, topic, status.queue).await {
                committed.insert(status.queue, offset);
            }
        }
        committed
    }

    /// Where a group is in one queue of a broker; `None` if it has not begun.
    pub async fn committed(
        &self,
        address: &str,
        group: &str,
        topic: &str,
        queue: i32,
    ) -> Result<Option<i64>> {
        let fields = [
            ("consumerGroup", Value::Str(group)),
            ("topic", Value::Str(topic)),
            ("queueId", Value::I32(queue)),
            ("setZeroIfNotFound", Value::Bool(false)),
        ];
        let code = request::QUERY_CONSUMER_OFFSET;
        match self.demand(address, code, &fields, b"").await {
            Ok(answer) => answer.i64("offset", address).map(Some),
            Err(error) if is_code(&error, response::QUERY_NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives a group the offsets of another in a topic. The group that gets them should have no members meanwhile.
    pub async fn clone_offsets(&self, from: &str, to: &str, topic: &str) -> Result<()> {
        let fields = [
            ("srcGroup", Value::Str(from)),
            ("destGroup", Value::Str(to)),
            ("topic", Value::Str(topic)),
            ("offline", Value::Bool(false)),
        ];
        for (_, address) in self.brokers_of(topic).await? {
            let code = request::CLONE_GROUP_OFFSET;
            self.demand(&address, code, &fields, b"").await?;
        }
        Ok(())
    }
}

impl Asked<'_> {
    /// As brokers take it; -1 is the end of every queue.
    fn timestamp(&self) -> Option<i64> {
        match (self.queue, self.target) {
            (Some(_), _) | (None, Target::Offset(_)) => None,
            (None, Target::Earliest) => Some(0),
            (None, Target::Latest) => Some(-1),
            (None, Target::Time(time_ms)) => Some(time_ms),
        }
    }
}

/// Whether the broker does not tell members, there being none or it not knowing how.
fn is_refusal(error: &Error) -> bool {
    is_code(error, response::CONSUMER_NOT_ONLINE)
        || is_code(error, response::REQUEST_CODE_NOT_SUPPORTED)
        || is_code(error, response::SYSTEM_ERROR)
}
