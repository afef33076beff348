use super::*;
use crate::command::Encoding;
use crate::write::write_request;

fn sample() -> PullHeader<'static> {
    PullHeader {
        consumer_group: Text::plain(b"group"),
        topic: Text::plain(b"topic"),
        queue_id: 1,
        queue_offset: i64::MAX,
        messages_max: 32,
        sys_flag: 3,
        commit_offset: 0,
        suspend_ms: 15_000,
        subscription: Some(Text::plain(b"*")),
        sub_version: 9,
        expression_type: None,
        bytes_max: Some(1 << 20),
        request_source: None,
        broker_name: Some(Text::plain(b"b")),
    }
}

fn asked(encoding: Encoding, fields: &[(&str, Value<'_>)]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_request(&mut frame, encoding, 11, 1, false, fields, b"");
    frame
}

#[test]
fn a_header_reads_back_as_it_was_written() {
    for encoding in [Encoding::Json, Encoding::Binary] {
        let frame = asked(encoding, &sample().fields());
        let command = Command::decode(&frame[4..]).unwrap();
        assert_eq!(PullHeader::from(&command).unwrap(), sample());
    }
}

#[test]
fn every_required_field_is_required() {
    for (number, name) in REQUIRED.into_iter().enumerate() {
        let mut fields = sample().fields();
        fields.remove(number);
        let frame = asked(Encoding::Json, &fields);
        let command = Command::decode(&frame[4..]).unwrap();
        assert_eq!(PullHeader::from(&command), Err(FieldError::Missing(name)));
    }
}

#[test]
fn an_answer_reads_back_as_it_was_written() {
    let answer = PullAnswer {
        suggested_broker: 1,
        next_offset: 2,
        min_offset: 3,
        max_offset: 4,
        ..PullAnswer::default()
    };
    let frame = asked(Encoding::Binary, &answer.fields());
    let command = Command::decode(&frame[4..]).unwrap();
    assert_eq!(PullAnswer::from(&command), Ok(answer));
}
