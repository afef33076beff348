//! Writing whole frames: answers in the encoding of their request, and requests of our own.
//!
//! Everything is appended to the caller's buffer; nothing is allocated on the way.

use crate::command::{Asked, Encoding, FLAG_ONEWAY, FLAG_RESPONSE, Language};
use crate::version::VERSION;
use crate::{frame, header_json};

/// A header value to be written. On the wire all of them are strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Str(&'a str),
    /// Bytes that are a string already (properties of a stored message).
    Bytes(&'a [u8]),
    I64(i64),
    I32(i32),
    Bool(bool),
}

/// Appends a whole answer, length first.
pub fn write_response(
    out: &mut Vec<u8>,
    to: Asked,
    code: i32,
    remark: Option<&str>,
    fields: &[(&str, Value<'_>)],
    body: &[u8],
) {
    write_response_head(out, to, code, remark, fields, body.len());
    out.extend_from_slice(body);
}

/// Appends an answer up to its body and announces `body_len` bytes, which the caller sends.
pub fn write_response_head(
    out: &mut Vec<u8>,
    to: Asked,
    code: i32,
    remark: Option<&str>,
    fields: &[(&str, Value<'_>)],
    body_len: usize,
) {
    let head = Head {
        code,
        // Stock clients of some languages know fewer languages than we do; all know this one.
        language: Language::JAVA,
        opaque: to.opaque,
        flag: FLAG_RESPONSE,
        remark,
    };
    head.append(out, to.encoding, fields, body_len);
}

/// Appends a whole request, length first.
pub fn write_request(
    out: &mut Vec<u8>,
    encoding: Encoding,
    code: i32,
    opaque: i32,
    oneway: bool,
    fields: &[(&str, Value<'_>)],
    body: &[u8],
) {
    let head = Head {
        code,
        language: Language::RUST,
        opaque,
        flag: if oneway { FLAG_ONEWAY } else { 0 },
        remark: None,
    };
    head.append(out, encoding, fields, body.len());
    out.extend_from_slice(body);
}

struct Head<'a> {
    code: i32,
    language: Language,
    opaque: i32,
    flag: i32,
    remark: Option<&'a str>,
}

impl Head<'_> {
    fn append(
        &self,
        out: &mut Vec<u8>,
        encoding: Encoding,
        fields: &[(&str, Value<'_>)],
        body_len: usize,
    ) {
        let start = frame::open(out);
        match encoding {
            Encoding::Json => self.append_json(out, fields),
            Encoding::Binary => self.append_binary(out, fields),
        }
        frame::close(out, start, encoding, body_len);
    }

    fn append_json(&self, out: &mut Vec<u8>, fields: &[(&str, Value<'_>)]) {
        out.extend_from_slice(b"{\"code\":");
        append_decimal(out, i64::from(self.code));
        if !fields.is_empty() {
            out.extend_from_slice(b",\"extFields\":{");
            for (number, (name, value)) in fields.iter().enumerate() {
                out.extend_from_slice(if number == 0 { b"\"" } else { b",\"" });
                header_json::append_escaped(out, name.as_bytes());
                out.extend_from_slice(b"\":\"");
                match value {
                    Value::Str(text) => header_json::append_escaped(out, text.as_bytes()),
                    Value::Bytes(text) => header_json::append_escaped(out, text),
                    other => other.append_plain(out),
                }
                out.push(b'"');
            }
            out.push(b'}');
        }
        out.extend_from_slice(b",\"flag\":");
        append_decimal(out, i64::from(self.flag));
        out.extend_from_slice(b",\"language\":\"");
        out.extend_from_slice(self.language.name().as_bytes());
        out.extend_from_slice(b"\",\"opaque\":");
        append_decimal(out, i64::from(self.opaque));
        if let Some(remark) = self.remark {
            out.extend_from_slice(b",\"remark\":\"");
            header_json::append_escaped(out, remark.as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
        append_decimal(out, i64::from(VERSION));
        out.push(b'}');
    }

    fn append_binary(&self, out: &mut Vec<u8>, fields: &[(&str, Value<'_>)]) {
        // The format has 16 bits for codes; larger ones are cut by RocketMQ, too.
        out.extend_from_slice(&(self.code as i16).to_be_bytes());
        out.push(self.language.0);
        out.extend_from_slice(&(VERSION as i16).to_be_bytes());
        out.extend_from_slice(&self.opaque.to_be_bytes());
        out.extend_from_slice(&self.flag.to_be_bytes());
        let remark = self.remark.unwrap_or_default().as_bytes();
        out.extend_from_slice(&(remark.len() as u32).to_be_bytes());
        out.extend_from_slice(remark);
        let fields_at = out.len();
        out.extend_from_slice(&[0; 4]);
        for (name, value) in fields {
            assert!(name.len() <= i16::MAX as usize, "field names are our own");
            out.extend_from_slice(&(name.len() as u16).to_be_bytes());
            out.extend_from_slice(name.as_bytes());
            let value_at = out.len();
            out.extend_from_slice(&[0; 4]);
            value.append_plain(out);
            fill_length(out, value_at);
        }
        fill_length(out, fields_at);
    }
}

impl Value<'_> {
    fn append_plain(&self, out: &mut Vec<u8>) {
        match *self {
            Value::Str(text) => out.extend_from_slice(text.as_bytes()),
            Value::Bytes(text) => out.extend_from_slice(text),
            Value::I64(number) => append_decimal(out, number),
            Value::I32(number) => append_decimal(out, i64::from(number)),
            Value::Bool(true) => out.extend_from_slice(b"true"),
            Value::Bool(false) => out.extend_from_slice(b"false"),
        }
    }
}

/// Fills in the four-byte length at `at`: everything behind it.
fn fill_length(out: &mut [u8], at: usize) {
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a number in decimal, two digits a step.
pub(crate) fn append_decimal(out: &mut Vec<u8>, number: i64) {
    const PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819\
2021222324252627282930313233343536373839\
4041424344454647484950515253545556575859\
6061626364656667686970717273747576777879\
8081828384858687888990919293949596979899";
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    while rest >= 100 {
        let pair = (rest % 100) as usize * 2;
        rest /= 100;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    if rest >= 10 {
        let pair = rest as usize * 2;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    } else {
        at -= 1;
        digits[at] = b'0' + rest as u8;
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;

    #[test]
    fn decimals_are_written_as_std_writes_them() {
        let mut numbers = vec![0, 1, 9, 10, 11, 99, 100, 101, i64::MAX, i64::MIN, -1, -10];
        numbers.extend((0..18).map(|power| 10i64.pow(power)));
        for number in numbers {
            let mut out = Vec::new();
            append_decimal(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }

    #[test]
    fn an_answer_reads_back_in_both_encodings() {
        for encoding in [Encoding::Json, Encoding::Binary] {
            let asked = Asked {
                opaque: -7,
                encoding,
            };
            let fields = [
                ("msgId", Value::Str("AC\u{1}\"\\ü")),
                ("queueOffset", Value::I64(i64::MIN)),
                ("queueId", Value::I32(3)),
                ("order", Value::Bool(true)),
                ("raw", Value::Bytes(b"k\x01v\x02")),
            ];
            let mut out = Vec::new();
            write_response(&mut out, asked, 14, Some("no\nway"), &fields, b"body");
            let total = u32::from_be_bytes(out[..4].try_into().unwrap()) as usize;
            assert_eq!(total, out.len() - 4);
            let command = Command::decode(&out[4..]).unwrap();
            assert_eq!((command.code, command.opaque), (14, -7));
            assert!(command.is_response() && !command.is_oneway());
            assert_eq!(command.remark_str().unwrap(), "no\nway");
            assert_eq!(command.fields.len(), 5);
            assert_eq!(command.fields.string("msgId").unwrap(), "AC\u{1}\"\\ü");
            assert_eq!(command.fields.i64("queueOffset"), Ok(Some(i64::MIN)));
            assert_eq!(command.fields.string("raw").unwrap(), "k\u{1}v\u{2}");
            assert_eq!(command.fields.bool("order"), Ok(Some(true)));
            assert_eq!(command.body, b"body");
        }
    }

    #[test]
    fn a_request_carries_our_language_and_version() {
        for encoding in [Encoding::Json, Encoding::Binary] {
            let mut out = Vec::new();
            write_request(&mut out, encoding, 34, 1, true, &[], b"");
            let command = Command::decode(&out[4..]).unwrap();
            assert_eq!(command.language, Language::RUST);
            assert_eq!(command.version, VERSION);
            assert!(command.is_oneway() && !command.is_response());
        }
    }

    #[test]
    fn a_head_announces_a_body_that_is_sent_later() {
        let asked = Asked {
            opaque: 1,
            encoding: Encoding::Json,
        };
        let mut out = Vec::new();
        write_response_head(&mut out, asked, 0, None, &[], 1000);
        let total = u32::from_be_bytes(out[..4].try_into().unwrap()) as usize;
        assert_eq!(total, out.len() - 4 + 1000);
    }
}
