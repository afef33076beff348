//! A consumer as its broker sees it beside its pulls: it says in a heartbeat what its group wants, locks queues, and asks how
//! far the group has come. It lives as long as its connection.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::load::Lane;
use crate::wire::{request, response};

/// What a group wants of a topic.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    Everything,
    /// Messages with one of these tags.
    Tags(&'a [&'a str]),
    Sql(&'a str),
}

pub struct Member {
    control: Control,
    group: String,
    client_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Heartbeat<'a> {
    #[serde(rename = "clientID")]
    client_id: &'a str,
    consumer_data_set: [Consumer<'a>; 1],
    producer_data_set: [&'a str; 0],
    heartbeat_fingerprint: i32,
    without_sub: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Consumer<'a> {
    group_name: &'a str,
    consume_type: &'a str,
    message_model: &'a str,
    consume_from_where: &'a str,
    subscription_data_set: [Subscription<'a>; 1],
    unit_mode: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Subscription<'a> {
    class_filter_mode: bool,
    topic: &'a str,
    sub_string: String,
    tags_set: &'a [&'a str],
    code_set: Vec<i32>,
    sub_version: u64,
    expression_type: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LockRequest<'a> {
    consumer_group: &'a str,
    client_id: &'a str,
    only_this_broker: bool,
    mq_set: Vec<MessageQueue>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageQueue {
    topic: String,
    broker_name: String,
    queue_id: u32,
}

#[derive(Deserialize)]
struct LockAnswer {
    #[serde(rename = "lockOKMQSet")]
    held: Vec<MessageQueue>,
}

const COMMIT_LIMIT: Duration = Duration::from_secs(20);
const COMMIT_POLL: Duration = Duration::from_millis(20);

impl Member {
    /// With its first heartbeat.
    pub fn join(
        broker: SocketAddr,
        group: &str,
        client_id: &str,
        topic: &str,
        wanted: Wanted,
    ) -> Result<Member> {
        let mut member = Member {
            control: Control::connect(broker)?,
            group: group.to_owned(),
            client_id: client_id.to_owned(),
        };
        let heartbeat = Heartbeat {
            client_id,
            consumer_data_set: [Consumer {
                group_name: group,
                consume_type: "CONSUME_PASSIVELY",
                message_model: "CLUSTERING",
                consume_from_where: "CONSUME_FROM_FIRST_OFFSET",
                subscription_data_set: [subscription(topic, wanted)],
                unit_mode: false,
            }],
            producer_data_set: [],
            heartbeat_fingerprint: 0,
            without_sub: false,
        };
        member.ask("a heartbeat", request::HEART_BEAT, &[], &heartbeat)?;
        Ok(member)
    }

    /// How many of these queues are this member's now; nobody else in the group gets them for a while.
    pub fn lock(&mut self, lanes: &[Lane], broker_name: &str) -> Result<usize> {
        let queues = lanes.iter().map(|lane| MessageQueue {
            topic: lane.topic.clone(),
            broker_name: broker_name.to_owned(),
            queue_id: lane.queue,
        });
        let asked = LockRequest {
            consumer_group: &self.group.clone(),
            client_id: &self.client_id.clone(),
            only_this_broker: false,
            mq_set: queues.collect(),
        };
        let body = self.ask("locking queues", request::LOCK_BATCH_MQ, &[], &asked)?;
        let answer: LockAnswer = serde_json::from_slice(&body)
            .map_err(|error| Error::Protocol(format!("locked queues: {error}")))?;
        let held = asked.mq_set.iter().filter(|one| answer.held.contains(one));
        Ok(held.count())
    }

    /// How far the group has come; `None` if it has not begun.
    pub fn committed(&mut self, lane: &Lane) -> Result<Option<u64>> {
        let queue = lane.queue.to_string();
        let fields = [
            ("consumerGroup", self.group.as_str()),
            ("topic", lane.topic.as_str()),
            ("queueId", queue.as_str()),
        ];
        let answer = self
            .control
            .ask(request::QUERY_CONSUMER_OFFSET, &fields, b"")?;
        let reply = answer.reply();
        match reply.code {
            response::SUCCESS => Ok(reply.number("offset")),
            response::QUERY_NOT_FOUND => Ok(None),
            code => Err(Error::Refused {
                what: "asking for a group's offset".into(),
                code,
                remark: reply.remark(),
            }),
        }
    }

    /// Waits until the group has come to the end of every queue.
    pub fn wait_for_end(&mut self, lanes: &[Lane]) -> Result<()> {
        let deadline = Instant::now() + COMMIT_LIMIT;
        for lane in lanes {
            let end = self.control.max_offset(&lane.topic, lane.queue)?;
            loop {
                let committed = self.committed(lane)?;
                if committed == Some(end) || end == 0 {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(Error::Failed(format!(
                        "{} has come to {committed:?} in queue {} of {}, which ends at {end}",
                        self.group, lane.queue, lane.topic
                    )));
                }
                thread::sleep(COMMIT_POLL);
            }
        }
        Ok(())
    }

    fn ask(
        &mut self,
        what: &str,
        code: i32,
        fields: &[(&str, &str)],
        body: &impl Serialize,
    ) -> Result<Vec<u8>> {
        let body = serde_json::to_vec(body).expect("names and numbers");
        let answer = self.control.ask(code, fields, &body)?;
        let reply = answer.reply();
        match reply.code {
            response::SUCCESS => Ok(reply.body.to_vec()),
            code => Err(Error::Refused {
                what: what.to_owned(),
                code,
                remark: reply.remark(),
            }),
        }
    }
}

fn subscription<'a>(topic: &'a str, wanted: Wanted<'a>) -> Subscription<'a> {
    let (expression, tags, kind): (String, &[&str], &str) = match wanted {
        Wanted::Everything => ("*".into(), &[], "TAG"),
        Wanted::Tags(tags) => (tags.join(" || "), tags, "TAG"),
        Wanted::Sql(expression) => (expression.into(), &[], "SQL92"),
    };
    Subscription {
        class_filter_mode: false,
        topic,
        sub_string: expression,
        tags_set: tags,
        code_set: tags.iter().map(|tag| tag_code(tag)).collect(),
        sub_version: 1,
        expression_type: kind,
    }
}

/// What stands for a tag in a queue's index: the hash that Java gives a string.
fn tag_code(tag: &str) -> i32 {
    tag.encode_utf16().fold(0i32, |code, unit| {
        code.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_have_the_codes_that_java_gives_them() {
        assert_eq!((tag_code("TagA"), tag_code("")), (2_598_919, 0));
        assert_eq!(
            tag_code("a long tag that wraps"),
            java_by_hand("a long tag that wraps")
        );
    }

    /// The sum of powers of 31, modulo 2 to the 32.
    fn java_by_hand(text: &str) -> i32 {
        let len = text.len() as u32;
        let sum = text.bytes().zip(0..).fold(0u128, |sum, (byte, at)| {
            let mut power = 1u128;
            for _ in 0..len - 1 - at {
                power = power * 31 % (1 << 32);
            }
            (sum + u128::from(byte) * power) % (1 << 32)
        });
        sum as u32 as i32
    }

    #[test]
    fn a_subscription_says_tags_with_their_codes_and_sql_as_it_is_written() {
        let tags = subscription("t", Wanted::Tags(&["a", "b"]));
        assert_eq!(
            (tags.sub_string.as_str(), tags.code_set),
            ("a || b", vec![97, 98])
        );
        let sql = subscription("t", Wanted::Sql("n > 3"));
        assert_eq!(
            (sql.expression_type, sql.sub_string.as_str()),
            ("SQL92", "n > 3")
        );
    }
}
