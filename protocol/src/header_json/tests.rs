use proptest::prelude::*;

use super::*;
use crate::fields::FIELDS_MAX;

/// Code, opaque and fields.
type Read = (i32, i32, Vec<(String, String)>);

fn decode(header: &str) -> Result<Read, DecodeError> {
    let mut frame = (header.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(header.as_bytes());
    let command = Command::decode(&frame)?;
    let fields = command
        .fields
        .iter()
        .map(|(name, value)| {
            let name = String::from_utf8_lossy(name).into_owned();
            (name, value.as_str().into_owned())
        })
        .collect();
    Ok((command.code, command.opaque, fields))
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_string(), value.to_string())
}

#[test]
fn order_blanks_and_unknown_keys_do_not_matter() {
    let header = " {\r\n \"x\" : [ 1 , { \"y\" : \"]\\\"}\" } , [ ] ] ,\t\"opaque\" : 5 , \
                  \"extFields\" : { \"b\" : \"t\" } , \"code\" : 310 } ";
    assert_eq!(decode(header), Ok((310, 5, vec![pair("b", "t")])));
}

#[test]
fn values_may_be_strings_numbers_or_flags_and_null_is_absent() {
    let header = r#"{"code":"10","extFields":{"a":"s","d":4,"g":-1.5e3,"k":true,"n":null}}"#;
    let fields = vec![
        pair("a", "s"),
        pair("d", "4"),
        pair("g", "-1.5e3"),
        pair("k", "true"),
    ];
    assert_eq!(decode(header), Ok((10, 0, fields)));
    assert_eq!(
        decode(r#"{"extFields":null,"remark":null}"#),
        Ok((0, 0, vec![]))
    );
    assert_eq!(decode("{}"), Ok((0, 0, vec![])));
}

#[test]
fn broken_json_is_an_error() {
    for broken in [
        "",
        "null",
        "[]",
        "{",
        "{\"code\"}",
        "{\"code\":}",
        "{\"code\":1",
        "{\"code\":1,}",
        "{\"code\":1}x",
        "{\"code\":1 \"flag\":0}",
        "{\"code\":\"x\"}",
        "{\"code\":99999999999}",
        "{\"code\":[1]}",
        "{\"extFields\":{\"a\":{}}}",
        "{\"extFields\":{\"a\":\"\\x\"}}",
        "{\"extFields\":{\"a\":\"\\u00g0\"}}",
        "{\"extFields\":{\"a\":\"\\u00",
        "{\"extFields\":[]}",
        "{\"x\":nul}",
        "{\"x\":[}",
        "{\"x\":'a'}",
        "{code:1}",
    ] {
        assert!(decode(broken).is_err(), "{broken}");
    }
}

#[test]
fn what_comes_twice_is_an_error() {
    assert!(decode(r#"{"code":1,"code":2}"#).is_err());
    assert!(decode(r#"{"extFields":{"a":"1","b":"2","a":"3"}}"#).is_err());
    assert!(decode(r#"{"extFields":{},"extFields":{}}"#).is_err());
}

#[test]
fn nesting_beyond_the_limit_is_an_error() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        decode(&format!("{{\"x\":{open}{close}}}"))
    };
    assert!(nested(DEPTH_MAX).is_ok());
    assert!(nested(DEPTH_MAX + 1).is_err());
    assert!(decode(&format!("{{\"x\":{}", "[".repeat(1 << 20))).is_err());
}

#[test]
fn too_many_fields_are_an_error() {
    let fields = |count: usize| {
        let all: Vec<_> = (0..count).map(|n| format!("\"n{n}\":\"{n}\"")).collect();
        decode(&format!("{{\"extFields\":{{{}}}}}", all.join(",")))
    };
    assert_eq!(fields(FIELDS_MAX).unwrap().2.len(), FIELDS_MAX);
    assert_eq!(fields(FIELDS_MAX + 1), Err(DecodeError::TooManyFields));
}

proptest! {
    #[test]
    fn escaping_is_undone_by_reading(value in any::<Vec<u8>>()) {
        let mut out = Vec::new();
        append_escaped(&mut out, &value);
        let text = Text::scanned(&out, out.contains(&b'\\'));
        let read = text.as_bytes();
        prop_assert_eq!(read.as_ref(), value.as_slice());
    }

    #[test]
    fn what_serde_writes_is_read(
        fields in prop::collection::btree_map("[a-z]{1,12}", any::<String>(), 0..30),
        opaque in any::<i32>(),
    ) {
        let header = serde_json::json!({ "code": 1, "extFields": fields, "opaque": opaque });
        let (_, read_opaque, read) = decode(&header.to_string()).unwrap();
        prop_assert_eq!(read_opaque, opaque);
        prop_assert_eq!(read, fields.into_iter().collect::<Vec<_>>());
    }
}
