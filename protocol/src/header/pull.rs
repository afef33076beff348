//! Pulling: codes 11 and 361, and what is answered.

use crate::command::Command;
use crate::fields::{FieldError, number_i32, number_i64};
use crate::text::Text;
use crate::write::Value;

/// A pull.
#[derive(Clone, Debug, PartialEq)]
pub struct PullHeader<'a> {
    pub consumer_group: Text<'a>,
    pub topic: Text<'a>,
    pub queue_id: i32,
    /// The first message wanted.
    pub queue_offset: i64,
    pub messages_max: i32,
    /// Bits of [`crate::sysflag::pull`].
    pub sys_flag: i32,
    /// Everything before it is done with; meant only with the commit bit.
    pub commit_offset: i64,
    /// How long the broker may hold the request when nothing is there.
    pub suspend_ms: i64,
    /// A filter expression; sent along only with the subscription bit.
    pub subscription: Option<Text<'a>>,
    pub sub_version: i64,
    /// TAG when absent.
    pub expression_type: Option<Text<'a>>,
    pub bytes_max: Option<i32>,
    /// Who asks (5.x proxies); not used by brokers of this protocol level.
    pub request_source: Option<i32>,
    pub broker_name: Option<Text<'a>>,
}

const ALL_REQUIRED: u16 = (1 << REQUIRED.len()) - 1;
const REQUIRED: [&str; 9] = [
    "consumerGroup",
    "topic",
    "queueId",
    "queueOffset",
    "maxMsgNums",
    "sysFlag",
    "commitOffset",
    "suspendTimeoutMillis",
    "subVersion",
];

impl<'a> PullHeader<'a> {
    pub fn from(command: &Command<'a>) -> Result<PullHeader<'a>, FieldError> {
        let mut header = PullHeader {
            consumer_group: Text::default(),
            topic: Text::default(),
            queue_id: 0,
            queue_offset: 0,
            messages_max: 0,
            sys_flag: 0,
            commit_offset: 0,
            suspend_ms: 0,
            subscription: None,
            sub_version: 0,
            expression_type: None,
            bytes_max: None,
            request_source: None,
            broker_name: None,
        };
        let mut seen = 0u16;
        for (name, text) in command.fields.iter() {
            if let Some(number) = header.set(name, text)? {
                seen |= 1 << number;
            }
        }
        if seen != ALL_REQUIRED {
            return Err(FieldError::Missing(
                REQUIRED[(!seen).trailing_zeros() as usize],
            ));
        }
        Ok(header)
    }

    /// Takes one field in; says its place in [`REQUIRED`] if it has one.
    fn set(&mut self, name: &[u8], text: Text<'a>) -> Result<Option<u8>, FieldError> {
        let number = match name {
            b"consumerGroup" => {
                self.consumer_group = text;
                0
            }
            b"topic" => {
                self.topic = text;
                1
            }
            b"queueId" => {
                self.queue_id = number_i32(REQUIRED[2], text)?;
                2
            }
            b"queueOffset" => {
                self.queue_offset = number_i64(REQUIRED[3], text)?;
                3
            }
            b"maxMsgNums" => {
                self.messages_max = number_i32(REQUIRED[4], text)?;
                4
            }
            b"sysFlag" => {
                self.sys_flag = number_i32(REQUIRED[5], text)?;
                5
            }
            b"commitOffset" => {
                self.commit_offset = number_i64(REQUIRED[6], text)?;
                6
            }
            b"suspendTimeoutMillis" => {
                self.suspend_ms = number_i64(REQUIRED[7], text)?;
                7
            }
            b"subVersion" => {
                self.sub_version = number_i64(REQUIRED[8], text)?;
                8
            }
            _ => return self.set_optional(name, text).map(|()| None),
        };
        Ok(Some(number))
    }

    fn set_optional(&mut self, name: &[u8], text: Text<'a>) -> Result<(), FieldError> {
        match name {
            b"subscription" => self.subscription = Some(text),
            b"expressionType" => self.expression_type = Some(text),
            b"maxMsgBytes" => self.bytes_max = Some(number_i32("maxMsgBytes", text)?),
            b"requestSource" => self.request_source = Some(number_i32("requestSource", text)?),
            b"bname" => self.broker_name = Some(text),
            _ => {}
        }
        Ok(())
    }

    /// The fields for [`crate::write_request`]; texts must be plain.
    pub fn fields(&self) -> Vec<(&'static str, Value<'a>)> {
        let mut fields = vec![
            (REQUIRED[0], Value::Bytes(self.consumer_group.raw())),
            (REQUIRED[1], Value::Bytes(self.topic.raw())),
            (REQUIRED[2], Value::I32(self.queue_id)),
            (REQUIRED[3], Value::I64(self.queue_offset)),
            (REQUIRED[4], Value::I32(self.messages_max)),
            (REQUIRED[5], Value::I32(self.sys_flag)),
            (REQUIRED[6], Value::I64(self.commit_offset)),
            (REQUIRED[7], Value::I64(self.suspend_ms)),
            (REQUIRED[8], Value::I64(self.sub_version)),
        ];
        let optional = [
            ("subscription", self.subscription),
            ("expressionType", self.expression_type),
            ("bname", self.broker_name),
        ];
        for (name, text) in optional {
            fields.extend(text.map(|text| (name, Value::Bytes(text.raw()))));
        }
        let numbers = [
            ("maxMsgBytes", self.bytes_max),
            ("requestSource", self.request_source),
        ];
        for (name, number) in numbers {
            fields.extend(number.map(|number| (name, Value::I32(number))));
        }
        fields
    }
}

/// The answer to a pull; the body holds the records one behind the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullAnswer {
    /// 0: go on with the master.
    pub suggested_broker: i64,
    pub next_offset: i64,
    pub min_offset: i64,
    pub max_offset: i64,
    /// 5.x only; absent means 0.
    pub offset_delta: Option<i64>,
    pub topic_sys_flag: Option<i32>,
    pub group_sys_flag: Option<i32>,
    pub forbidden_type: Option<i32>,
}

impl PullAnswer {
    pub fn from(command: &Command<'_>) -> Result<PullAnswer, FieldError> {
        let fields = &command.fields;
        Ok(PullAnswer {
            suggested_broker: fields.required_i64("suggestWhichBrokerId")?,
            next_offset: fields.required_i64("nextBeginOffset")?,
            min_offset: fields.required_i64("minOffset")?,
            max_offset: fields.required_i64("maxOffset")?,
            offset_delta: fields.i64("offsetDelta")?,
            topic_sys_flag: fields.i32("topicSysFlag")?,
            group_sys_flag: fields.i32("groupSysFlag")?,
            forbidden_type: fields.i32("forbiddenType")?,
        })
    }

    /// The fields every version reads.
    pub fn fields(&self) -> [(&'static str, Value<'static>); 4] {
        [
            ("suggestWhichBrokerId", Value::I64(self.suggested_broker)),
            ("nextBeginOffset", Value::I64(self.next_offset)),
            ("minOffset", Value::I64(self.min_offset)),
            ("maxOffset", Value::I64(self.max_offset)),
        ]
    }
}

#[cfg(test)]
mod tests;
