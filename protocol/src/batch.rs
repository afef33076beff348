//! The body of a batch send: several messages of one topic, one behind the other.
//!
//! ```text
//! | total u32 | magic u32 | crc u32 | flag i32 | body len u32, body | properties len i16, bytes |
//! ```
//!
//! As in RocketMQ the inner lengths decide; total, magic and crc are filled in by clients as they
//! like and not looked at.

/// What every message has besides its body and properties.
pub const MESSAGE_BYTES_MIN: usize = 4 + 4 + 4 + 4 + 4 + 2;

/// One message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner<'a> {
    pub flag: i32,
    pub body: &'a [u8],
    pub properties: &'a [u8],
}

/// The batch ends within a message, or a length is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("broken batch: message {number} does not fit into its {bytes} bytes")]
pub struct BatchError {
    pub number: usize,
    pub bytes: usize,
}

/// The messages of a batch. After an error there is nothing more.
pub fn iter(body: &[u8]) -> Messages<'_> {
    Messages {
        whole: body.len(),
        rest: body,
        number: 0,
    }
}

/// See [`iter`].
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    whole: usize,
    rest: &'a [u8],
    number: usize,
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Inner<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let number = self.number;
        self.number += 1;
        match take_message(self.rest) {
            Some((message, rest)) => {
                self.rest = rest;
                Some(Ok(message))
            }
            None => {
                self.rest = &[];
                let bytes = self.whole;
                Some(Err(BatchError { number, bytes }))
            }
        }
    }
}

fn take_message(bytes: &[u8]) -> Option<(Inner<'_>, &[u8])> {
    let (_total_magic_crc, rest) = bytes.split_first_chunk::<12>()?;
    let (flag, rest) = rest.split_first_chunk()?;
    let (body_len, rest) = rest.split_first_chunk()?;
    let body_len = usize::try_from(i32::from_be_bytes(*body_len)).ok()?;
    let (body, rest) = rest.split_at_checked(body_len)?;
    let (properties_len, rest) = rest.split_first_chunk()?;
    let properties_len = usize::try_from(i16::from_be_bytes(*properties_len)).ok()?;
    let (properties, rest) = rest.split_at_checked(properties_len)?;
    let message = Inner {
        flag: i32::from_be_bytes(*flag),
        body,
        properties,
    };
    Some((message, rest))
}

/// Appends a message to a batch being built. Its properties must fit 15 bits, its body 31.
pub fn append(out: &mut Vec<u8>, message: &Inner<'_>) {
    let (body, properties) = (message.body, message.properties);
    assert!(properties.len() <= crate::names::PROPERTIES_BYTES_MAX);
    let total = MESSAGE_BYTES_MIN + body.len() + properties.len();
    assert!(total <= i32::MAX as usize);
    out.extend_from_slice(&(total as u32).to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&message.flag.to_be_bytes());
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(&(properties.len() as u16).to_be_bytes());
    out.extend_from_slice(properties);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<u8> {
        let mut out = Vec::new();
        for (flag, body) in [(1, b"first".as_slice()), (-2, b"")] {
            let properties = b"TAGS\x01a\x02";
            append(
                &mut out,
                &Inner {
                    flag,
                    body,
                    properties,
                },
            );
        }
        out
    }

    #[test]
    fn what_was_appended_comes_back() {
        let body = two();
        let messages: Vec<_> = iter(&body).map(Result::unwrap).collect();
        assert_eq!(messages.len(), 2);
        assert_eq!(
            (messages[0].flag, messages[0].body),
            (1, b"first".as_slice())
        );
        assert_eq!(messages[1].properties, b"TAGS\x01a\x02");
    }

    #[test]
    fn a_batch_cut_anywhere_is_an_error_and_then_ends() {
        let body = two();
        for cut in 1..body.len() {
            let results: Vec<_> = iter(&body[..cut]).collect();
            let whole = cut == 22 + 5 + 7;
            assert_eq!(results.iter().all(Result::is_ok), whole, "cut at {cut}");
        }
    }

    #[test]
    fn negative_lengths_are_errors() {
        let mut body = two();
        body[16] = 0xFF;
        assert!(iter(&body).next().unwrap().is_err());
    }
}
