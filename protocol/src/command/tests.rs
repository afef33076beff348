use proptest::prelude::*;

use super::*;
use crate::write::{Value, write_request, write_response};

const NAMES: [&str; 6] = ["a", "topic", "queueOffset", "i", "x-y", "ü"];

fn encodings() -> impl Strategy<Value = Encoding> {
    prop_oneof![Just(Encoding::Json), Just(Encoding::Binary)]
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{1,40}",
        "[\\x01\\x02\"\\\\/\\n\\ta-c]{1,40}",
        "\\PC{1,20}",
        any::<i64>().prop_map(|number| number.to_string()),
    ]
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        encoding in encodings(),
        code in i16::MIN..=i16::MAX,
        opaque in any::<i32>(),
        oneway in any::<bool>(),
        values in prop::collection::vec(texts(), 0..NAMES.len()),
        body in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let fields: Vec<_> = NAMES
            .iter()
            .zip(&values)
            .map(|(name, value)| (*name, Value::Str(value)))
            .collect();
        let mut frame = Vec::new();
        write_request(&mut frame, encoding, i32::from(code), opaque, oneway, &fields, &body);
        let command = Command::decode(&frame[4..]).unwrap();
        prop_assert_eq!(command.code, i32::from(code));
        prop_assert_eq!(command.opaque, opaque);
        prop_assert_eq!(command.is_oneway(), oneway);
        prop_assert_eq!(command.encoding, encoding);
        prop_assert_eq!(command.body, body.as_slice());
        prop_assert_eq!(command.fields.len(), values.len());
        for (name, value) in NAMES.iter().zip(&values) {
            let read = command.fields.string(name).unwrap();
            prop_assert_eq!(read.as_ref(), value.as_str());
        }
    }

    #[test]
    fn a_remark_reads_back(encoding in encodings(), remark in texts()) {
        let asked = Asked { opaque: 1, encoding };
        let mut frame = Vec::new();
        write_response(&mut frame, asked, 1, Some(&remark), &[], b"");
        let command = Command::decode(&frame[4..]).unwrap();
        let read = command.remark_str().unwrap();
        prop_assert_eq!(read.as_ref(), remark.as_str());
    }

    #[test]
    fn arbitrary_bytes_are_a_command_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Command::decode(&bytes);
    }

    #[test]
    fn arbitrary_headers_are_a_command_or_an_error(
        encoding in 0..2u8,
        header in prop::collection::vec(
            prop_oneof![
                any::<u8>(),
                prop::sample::select(b"{}[]:,\"\\ue0ntf1-. ".to_vec()),
            ],
            0..200,
        ),
    ) {
        let mut frame = vec![encoding, 0, 0, header.len() as u8];
        frame.extend_from_slice(&header);
        if let Ok(command) = Command::decode(&frame) {
            for (_, value) in command.fields.iter() {
                prop_assert_eq!(value.unescaped_len(), value.as_bytes().len());
            }
        }
    }

    #[test]
    fn a_damaged_frame_is_a_command_or_an_error(
        encoding in encodings(),
        value in texts(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut frame = Vec::new();
        let fields = [("a", Value::Str(&value)), ("g", Value::I64(17))];
        write_request(&mut frame, encoding, 310, 1, false, &fields, b"body");
        let at = at.index(frame.len());
        frame[at] = byte;
        let _ = Command::decode(&frame[4..]);
        let _ = Command::decode(&frame[4..4 + cut.index(frame.len() - 4)]);
    }
}

#[test]
fn languages_are_read_by_name_and_number_and_printed_by_name() {
    for (spelling, name) in [
        ("\"GO\"", "GO"),
        ("9", "GO"),
        ("\"X\"", "OTHER"),
        ("null", "OTHER"),
    ] {
        let header = format!("{{\"language\":{spelling}}}");
        let mut frame = vec![0, 0, 0, header.len() as u8];
        frame.extend_from_slice(header.as_bytes());
        let command = Command::decode(&frame).unwrap();
        assert_eq!(command.language.name(), name, "{spelling}");
    }
    assert_eq!(Language(200).name(), "OTHER");
    assert_eq!(Language::RUST.name(), "RUST");
}

#[test]
fn an_empty_frame_is_an_error() {
    assert_eq!(Command::decode(&[]).unwrap_err(), DecodeError::Truncated);
    // A header of no bytes is broken in either encoding.
    assert!(Command::decode(&[0, 0, 0, 0]).is_err());
    assert!(Command::decode(&[1, 0, 0, 0]).is_err());
}
