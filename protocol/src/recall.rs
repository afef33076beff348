//! Recall handles: what a sender of a delayed message gets, and hands back to have it withdrawn.
//!
//! `v1 TOPIC BROKER TIME ID` in base64 for URLs, as RocketMQ 5.3 and later write it.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const VERSION: &str = "v1";

/// RocketMQ writes the padding and reads handles with and without it.
const HANDLE: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a handle says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    pub topic: String,
    pub broker_name: String,
    /// When the message is due, milliseconds; as it was written, which may be no number.
    pub time: String,
    /// The message's unique key.
    pub message_id: String,
}

pub fn encode(topic: &str, broker_name: &str, due_ms: i64, message_id: &str) -> String {
    HANDLE.encode(format!(
        "{VERSION} {topic} {broker_name} {due_ms} {message_id}"
    ))
}

/// None if it is no handle.
pub fn decode(handle: &str) -> Option<Handle> {
    let bytes = HANDLE.decode(handle).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let mut words = text.split(' ').map(str::to_owned);
    if words.next()? != VERSION {
        return None;
    }
    Some(Handle {
        topic: words.next()?,
        broker_name: words.next()?,
        time: words.next()?,
        message_id: words.next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_handle_is_laid_out_as_rocketmq_lays_it_out() {
        let handle = encode("Orders", "broker-a", 1_700_000_000_000, "7F0000010001");
        assert_eq!(
            handle,
            "djEgT3JkZXJzIGJyb2tlci1hIDE3MDAwMDAwMDAwMDAgN0YwMDAwMDEwMDAx"
        );
    }

    #[test]
    fn what_is_no_handle_is_none() {
        let encoded = |text: &str| HANDLE.encode(text);
        for text in [
            String::new(),
            "?".to_owned(),
            encoded("v2 t b 1 id"),
            encoded("v1 t b 1"),
        ] {
            assert_eq!(decode(&text), None, "{text}");
        }
        let unpadded = encoded("v1 t b 1 i").trim_end_matches('=').to_owned();
        assert!(decode(&unpadded).is_some());
    }

    proptest! {
        #[test]
        fn handles_come_back_and_no_text_breaks_the_reader(
            topic in "[a-zA-Z0-9%|_-]{1,20}", broker in "[^ ]{1,20}", due in any::<i64>(), id in "[0-9A-F]{1,32}", junk in ".*",
        ) {
            let handle = decode(&encode(&topic, &broker, due, &id)).expect("ours");
            prop_assert_eq!(
                (handle.topic, handle.broker_name, handle.time, handle.message_id),
                (topic, broker, due.to_string(), id)
            );
            let _ = decode(&junk);
        }
    }
}
