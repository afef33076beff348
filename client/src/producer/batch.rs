//! Several messages of one topic as one request.

use protocol::code::request;
use protocol::properties;

use super::Producer;
use super::sending::{About, Prepared};
use crate::error::{Error, Result};
use crate::message::Message;

impl Producer {
    pub(super) fn prepare_batch(&self, messages: &[Message]) -> Result<Prepared> {
        self.check_running()?;
        let illegal = |what: &str| Err(Error::Illegal(what.to_owned()));
        let Some(first) = messages.first() else {
            return illegal("a batch of nothing");
        };
        if messages
            .iter()
            .any(|message| message.topic() != first.topic())
        {
            return illegal("the messages of a batch have one topic");
        }
        if protocol::names::is_retry_topic(first.topic()) {
            return illegal("a retry topic takes no batches");
        }
        let max = self.shared.options.body_bytes_max;
        let mut body = Vec::new();
        let mut ids = Vec::with_capacity(messages.len());
        for message in messages {
            message.check(max)?;
            let id = self.shared.session.ids.next();
            if message.is_delayed() {
                return illegal("a batch cannot be delayed");
            }
            let properties = self.properties_of(message, &id)?;
            append(&mut body, message, &properties);
            ids.push(id);
        }
        if body.len() > max {
            let len = body.len();
            return Err(Error::Illegal(format!(
                "the batch has {len} bytes, {max} are allowed"
            )));
        }
        let mut wait = Vec::new();
        properties::append(&mut wait, 0, properties::WAIT, b"true");
        Ok(Prepared {
            topic: self.shared.session.settings.namespace.wrap(first.topic()),
            code: request::SEND_BATCH_MESSAGE,
            properties: wait,
            ids,
            flag: 0,
            sys_flag: 0,
            reconsumed: 0,
            reconsume_max: None,
            about: About {
                body_bytes: body.len(),
                delayed: false,
            },
            body,
        })
    }
}

/// Size, magic, crc and flag, then body and properties with their lengths; magic and crc are not looked at.
fn append(out: &mut Vec<u8>, message: &Message, properties: &[u8]) {
    let size = protocol::batch::MESSAGE_BYTES_MIN + message.body().len() + properties.len();
    out.extend_from_slice(&(size as u32).to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&message.flag.to_be_bytes());
    out.extend_from_slice(&(message.body().len() as u32).to_be_bytes());
    out.extend_from_slice(message.body());
    out.extend_from_slice(&(properties.len() as u16).to_be_bytes());
    out.extend_from_slice(properties);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_laid_out_is_what_a_broker_reads() {
        let mut body = Vec::new();
        append(&mut body, &Message::new("t", "one").flag(7), b"k\x01v\x02");
        append(&mut body, &Message::new("t", "two"), b"");
        let inner: Vec<_> = protocol::batch::iter(&body)
            .map(|message| message.expect("whole"))
            .collect();
        assert_eq!(
            (inner[0].flag, inner[0].body, inner[0].properties),
            (7, &b"one"[..], &b"k\x01v\x02"[..])
        );
        assert_eq!(
            (inner[1].body, inner[1].properties),
            (&b"two"[..], &b""[..])
        );
    }
}
