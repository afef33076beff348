//! Sending: codes 10, 310, 320 and the reply forms 324, 325, and what is answered.

use std::borrow::Cow;

use crate::code::request;
use crate::command::Command;
use crate::fields::{FieldError, number_i32, number_i64};
use crate::text::Text;
use crate::write::Value;

/// A send. Code 10 and 324 spell the names out, the others use one letter each.
#[derive(Clone, Debug, PartialEq)]
pub struct SendHeader<'a> {
    pub producer_group: Text<'a>,
    pub topic: Text<'a>,
    /// The topic whose settings an automatically created one takes over (TBW102).
    pub default_topic: Text<'a>,
    pub default_topic_queues: i32,
    /// Negative: the broker chooses.
    pub queue_id: i32,
    pub sys_flag: i32,
    pub born_ms: i64,
    /// The application's own number.
    pub flag: i32,
    /// Name and value pairs of the message, see [`crate::properties`].
    pub properties: Text<'a>,
    pub reconsume_times: i32,
    pub unit_mode: bool,
    pub max_reconsume_times: Option<i32>,
    /// The body holds several messages, see [`crate::batch`].
    pub batch: bool,
    /// The broker the client believes it talks to (5.x).
    pub broker_name: Option<Text<'a>>,
}

/// Bits of the fields a send must have, in the order of [`REQUIRED`].
const ALL_REQUIRED: u16 = (1 << REQUIRED.len()) - 1;
const REQUIRED: [&str; 8] = [
    "producerGroup",
    "topic",
    "defaultTopic",
    "defaultTopicQueueNums",
    "queueId",
    "sysFlag",
    "bornTimestamp",
    "flag",
];

impl<'a> SendHeader<'a> {
    pub fn from(command: &Command<'a>) -> Result<SendHeader<'a>, FieldError> {
        let short_names = !matches!(
            command.code,
            request::SEND_MESSAGE | request::SEND_REPLY_MESSAGE
        );
        let mut header = SendHeader::empty();
        let mut seen = 0u16;
        for (name, text) in command.fields.iter() {
            let letter = match name {
                [letter] if short_names => *letter,
                name if !short_names => letter_of(name),
                // The only name a newer client adds to the short form besides its letters.
                b"bname" => b'n',
                _ => continue,
            };
            header.set(letter, text, &mut seen)?;
        }
        // A batch is marked by its code, too: the flag came later.
        header.batch |= command.code == request::SEND_BATCH_MESSAGE;
        if seen != ALL_REQUIRED {
            return Err(FieldError::Missing(
                REQUIRED[(!seen).trailing_zeros() as usize],
            ));
        }
        Ok(header)
    }

    fn empty() -> SendHeader<'a> {
        SendHeader {
            producer_group: Text::default(),
            topic: Text::default(),
            default_topic: Text::default(),
            default_topic_queues: 0,
            queue_id: 0,
            sys_flag: 0,
            born_ms: 0,
            flag: 0,
            properties: Text::default(),
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch: false,
            broker_name: None,
        }
    }

    fn set(&mut self, letter: u8, text: Text<'a>, seen: &mut u16) -> Result<(), FieldError> {
        match letter {
            b'a' => self.producer_group = text,
            b'b' => self.topic = text,
            b'c' => self.default_topic = text,
            b'd' => self.default_topic_queues = number_i32("defaultTopicQueueNums", text)?,
            b'e' => self.queue_id = number_i32("queueId", text)?,
            b'f' => self.sys_flag = number_i32("sysFlag", text)?,
            b'g' => self.born_ms = number_i64("bornTimestamp", text)?,
            b'h' => self.flag = number_i32("flag", text)?,
            b'i' => self.properties = text,
            b'j' => self.reconsume_times = number_i32("reconsumeTimes", text)?,
            b'k' => self.unit_mode = text.parse_bool(),
            b'l' => self.max_reconsume_times = Some(number_i32("maxReconsumeTimes", text)?),
            b'm' => self.batch = text.parse_bool(),
            b'n' => self.broker_name = Some(text),
            _ => {}
        }
        if (b'a'..=b'h').contains(&letter) {
            *seen |= 1 << (letter - b'a');
        }
        Ok(())
    }

    /// The fields for [`crate::write_request`] with code 310 or 320 (one-letter names).
    /// Texts must be plain; a header read from JSON is written out again through
    /// [`Text::as_bytes`] by the caller.
    pub fn fields(&self) -> Vec<(&'static str, Value<'a>)> {
        let mut fields = vec![
            ("a", Value::Bytes(self.producer_group.raw())),
            ("b", Value::Bytes(self.topic.raw())),
            ("c", Value::Bytes(self.default_topic.raw())),
            ("d", Value::I32(self.default_topic_queues)),
            ("e", Value::I32(self.queue_id)),
            ("f", Value::I32(self.sys_flag)),
            ("g", Value::I64(self.born_ms)),
            ("h", Value::I32(self.flag)),
            ("i", Value::Bytes(self.properties.raw())),
            ("j", Value::I32(self.reconsume_times)),
            ("k", Value::Bool(self.unit_mode)),
            ("m", Value::Bool(self.batch)),
        ];
        if let Some(times) = self.max_reconsume_times {
            fields.push(("l", Value::I32(times)));
        }
        if let Some(name) = self.broker_name {
            fields.push(("n", Value::Bytes(name.raw())));
        }
        fields
    }
}

/// The letter a spelled-out name stands for; 0 for one we do not know.
fn letter_of(name: &[u8]) -> u8 {
    match name {
        b"producerGroup" => b'a',
        b"topic" => b'b',
        b"defaultTopic" => b'c',
        b"defaultTopicQueueNums" => b'd',
        b"queueId" => b'e',
        b"sysFlag" => b'f',
        b"bornTimestamp" => b'g',
        b"flag" => b'h',
        b"properties" => b'i',
        b"reconsumeTimes" => b'j',
        b"unitMode" => b'k',
        b"maxReconsumeTimes" => b'l',
        b"batch" => b'm',
        b"bname" => b'n',
        _ => 0,
    }
}

/// The answer to a send.
#[derive(Clone, Debug, PartialEq)]
pub struct SendAnswer<'a> {
    /// The offset message id, see [`crate::record::message_id`]; comma-separated for a batch.
    pub message_id: Cow<'a, str>,
    pub queue_id: i32,
    pub queue_offset: i64,
    pub transaction_id: Option<Cow<'a, str>>,
    pub batch_uniq_id: Option<Cow<'a, str>>,
    /// Names a timer message for later withdrawal (5.3).
    pub recall_handle: Option<Cow<'a, str>>,
}

impl<'a> SendAnswer<'a> {
    pub fn from(command: &Command<'a>) -> Result<SendAnswer<'a>, FieldError> {
        let fields = &command.fields;
        Ok(SendAnswer {
            message_id: fields.required_string("msgId")?,
            queue_id: fields.required_i32("queueId")?,
            queue_offset: fields.required_i64("queueOffset")?,
            transaction_id: fields.string("transactionId"),
            batch_uniq_id: fields.string("batchUniqId"),
            recall_handle: fields.string("recallHandle"),
        })
    }
}

#[cfg(test)]
mod tests;
