use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn strict(loose: &str) -> String {
    String::from_utf8(lenient(loose.as_bytes()).into_owned()).unwrap()
}

#[test]
fn strict_input_is_handed_on_as_it_is() {
    for input in [
        "{}",
        "null",
        r#"{"a":{"0":[1,-2.5e3,true,null,"x:{'\""]}} "#,
        "[{},[],\"\\u0001\"]",
    ] {
        assert!(
            matches!(lenient(input.as_bytes()), Cow::Borrowed(_)),
            "{input}"
        );
    }
}

#[test]
fn number_keys_get_quotes() {
    assert_eq!(
        strict(r#"{0:"a",1:{-2:3}, x :4}"#),
        r#"{"0":"a","1":{"-2":3}, "x" :4}"#
    );
    assert_eq!(
        strict(r#"{"t":[{0:1},{1:2}]}"#),
        r#"{"t":[{"0":1},{"1":2}]}"#
    );
}

#[test]
fn single_quotes_become_double_ones() {
    assert_eq!(strict(r#"{'a':'it\'s "x"\n'}"#), r#"{"a":"it's \"x\"\n"}"#);
}

#[test]
fn a_key_that_is_an_object_becomes_a_string() {
    let loose = r#"{{"queueId":0,"topic":"t"}:{"x":1},{"queueId":1}:2}"#;
    let read: BTreeMap<String, serde_json::Value> = from_slice(loose.as_bytes()).unwrap();
    assert_eq!(read[r#"{"queueId":1}"#], 2);
    assert_eq!(read[r#"{"queueId":0,"topic":"t"}"#]["x"], 1);
}

#[test]
fn control_characters_within_strings_are_taken() {
    assert_eq!(from_slice::<String>(b"\"a\x01\nb\"").unwrap(), "a\u{1}\nb");
}

#[test]
fn broken_input_stays_broken() {
    for broken in [
        "{", "{0:", "{0:1", "'", "{'a", "{a b:1}", "}", "{{", "{{}:", "\\", "{:1}",
    ] {
        let read: Result<serde_json::Value, _> = from_slice(broken.as_bytes());
        assert!(read.is_err(), "{broken}");
    }
    let deep = [b"{0:".repeat(100_000), b"1".to_vec(), b"}".repeat(100_000)].concat();
    assert!(from_slice::<serde_json::Value>(&deep).is_err());
}

#[test]
fn keys_within_keys_do_not_blow_the_output_up() {
    let nested = [
        b"{".repeat(60),
        b"\"a\":1".to_vec(),
        b"}:1".repeat(59),
        b"}".to_vec(),
    ]
    .concat();
    assert!(matches!(lenient(&nested), Cow::Borrowed(_)));
    assert!(from_slice::<serde_json::Value>(&nested).is_err());
}

#[test]
fn empty_and_awkward_keys_survive_the_loose_dialect() {
    let awkward = BTreeMap::from([("", 1), ("\"", 2), ("\u{1}x", 3), ("0", 4)]);
    let written = to_vec(&awkward, Dialect::Fastjson1);
    let read: BTreeMap<String, i32> = serde_json::from_slice(&written).unwrap();
    assert_eq!(read.len(), 4);
    assert_eq!(read["\u{1}x"], 3);
}

proptest! {
    #[test]
    fn arbitrary_bytes_become_something(bytes in any::<Vec<u8>>()) {
        let _ = lenient(&bytes);
    }

    #[test]
    fn arbitrary_brackets_become_something(
        text in prop::collection::vec(prop::sample::select(b"{}[]:,\"'\\a0 ".to_vec()), 0..80),
    ) {
        let _ = lenient(&text);
    }

    #[test]
    fn both_dialects_say_the_same(
        table in prop::collection::btree_map(any::<i64>(), any::<String>(), 0..8),
        names in prop::collection::btree_map(any::<String>(), any::<i32>(), 0..8),
    ) {
        let value = (table, names);
        for written in [
            to_vec(&value, Dialect::Strict),
            to_vec(&value, Dialect::Fastjson1),
            to_vec_pretty(&value),
        ] {
            let read: (BTreeMap<i64, String>, BTreeMap<String, i32>) = from_slice(&written).unwrap();
            prop_assert_eq!(&read, &value);
        }
    }
}
