use super::*;
use crate::command::Encoding;
use crate::write::write_request;

fn sample() -> SendHeader<'static> {
    SendHeader {
        producer_group: Text::plain(b"group"),
        topic: Text::plain(b"topic"),
        default_topic: Text::plain(b"TBW102"),
        default_topic_queues: 4,
        queue_id: -1,
        sys_flag: 8,
        born_ms: 1_700_000_000_000,
        flag: i32::MIN,
        properties: Text::plain(b"TAGS\x01a\x02"),
        reconsume_times: 3,
        unit_mode: true,
        max_reconsume_times: Some(16),
        batch: false,
        broker_name: Some(Text::plain(b"broker-a")),
    }
}

fn sent(code: i32, fields: &[(&str, Value<'_>)]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_request(&mut frame, Encoding::Binary, code, 1, false, fields, b"");
    frame
}

#[test]
fn a_header_reads_back_as_it_was_written() {
    let frame = sent(310, &sample().fields());
    let command = Command::decode(&frame[4..]).unwrap();
    assert_eq!(SendHeader::from(&command).unwrap(), sample());
}

#[test]
fn code_320_is_a_batch_even_without_the_flag() {
    let frame = sent(320, &sample().fields());
    let command = Command::decode(&frame[4..]).unwrap();
    assert!(SendHeader::from(&command).unwrap().batch);
}

#[test]
fn every_required_field_is_required() {
    let whole = sample().fields();
    for (number, name) in REQUIRED.into_iter().enumerate() {
        let mut fields = whole.clone();
        fields.remove(number);
        let frame = sent(310, &fields);
        let command = Command::decode(&frame[4..]).unwrap();
        assert_eq!(SendHeader::from(&command), Err(FieldError::Missing(name)));
    }
}

#[test]
fn a_number_that_is_none_is_named() {
    let mut fields = sample().fields();
    fields[4] = ("e", Value::Str("first"));
    let frame = sent(310, &fields);
    let command = Command::decode(&frame[4..]).unwrap();
    let error = SendHeader::from(&command).unwrap_err();
    assert!(matches!(
        error,
        FieldError::NotANumber {
            name: "queueId",
            ..
        }
    ));
}

#[test]
fn long_names_mean_nothing_in_the_short_form_and_the_reverse() {
    let mut fields = sample().fields();
    fields.push(("topic", Value::Str("other")));
    let frame = sent(310, &fields);
    let command = Command::decode(&frame[4..]).unwrap();
    assert!(SendHeader::from(&command).unwrap().topic.eq_str("topic"));
    let frame = sent(10, &fields);
    let command = Command::decode(&frame[4..]).unwrap();
    assert!(SendHeader::from(&command).is_err());
}
