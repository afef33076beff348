use super::*;
use crate::command::{Command, Encoding};
use crate::write::write_request;

fn with_command<T>(fields: &[(&str, Value<'_>)], check: impl FnOnce(Command<'_>) -> T) -> T {
    let mut frame = Vec::new();
    write_request(&mut frame, Encoding::Binary, 1, 1, false, fields, b"");
    check(Command::decode(&frame[4..]).unwrap())
}

#[test]
fn a_header_writes_the_fields_it_reads() {
    let fields = [
        ("brokerName", Value::Str("b")),
        ("brokerAddr", Value::Str("1:2")),
        ("clusterName", Value::Str("c")),
        ("brokerId", Value::I64(0)),
        ("compressed", Value::Bool(false)),
        ("bodyCrc32", Value::I32(-1)),
    ];
    with_command(&fields, |command| {
        let header = namesrv::RegisterBroker::from(&command).unwrap();
        assert_eq!(header.ha_server_addr, None);
        assert_eq!(header.body_crc, Some(-1));
        assert_eq!(header.fields(), fields);
    });
}

#[test]
fn a_missing_field_is_named_and_a_wrong_one_is_not_taken_for_missing() {
    let fields = [("topic", Value::Str("t")), ("queueId", Value::Str("x"))];
    with_command(&fields, |command| {
        let error = offset::QueueQuery::from(&command).unwrap_err();
        assert!(matches!(
            error,
            FieldError::NotANumber {
                name: "queueId",
                ..
            }
        ));
        let error = offset::UpdateOffset::from(&command).unwrap_err();
        assert_eq!(error, FieldError::Missing("consumerGroup"));
    });
    // An optional number that is none is an error, too.
    let fields = [("topicSeq", Value::Str("x"))];
    with_command(&fields, |command| {
        assert!(admin::TopicPage::from(&command).is_err());
    });
}

#[test]
fn old_clients_get_the_old_route_unless_they_ask() {
    let route = |version: i32, strict: Option<bool>| {
        let mut fields = vec![("topic", Value::Str("t"))];
        fields.extend(strict.map(|strict| ("acceptStandardJsonOnly", Value::Bool(strict))));
        with_command(&fields, |mut command| {
            command.version = version;
            namesrv::Route::from(&command).unwrap().dialect(&command)
        })
    };
    use crate::json::Dialect;
    assert_eq!(route(400, None), Dialect::Fastjson1);
    assert_eq!(route(400, Some(false)), Dialect::Fastjson1);
    assert_eq!(route(400, Some(true)), Dialect::Strict);
    assert_eq!(route(401, None), Dialect::Strict);
    assert_eq!(route(0, None), Dialect::Fastjson1);
}
