use super::*;
use crate::fields::FIELDS_MAX;

/// A header with the given fields; lengths may lie.
fn header(remark: &[u8], fields: &[(i16, &[u8], i32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&310i16.to_be_bytes());
    out.push(9);
    out.extend_from_slice(&401i16.to_be_bytes());
    out.extend_from_slice(&7i32.to_be_bytes());
    out.extend_from_slice(&2i32.to_be_bytes());
    out.extend_from_slice(&(remark.len() as u32).to_be_bytes());
    out.extend_from_slice(remark);
    let mut all = Vec::new();
    for (name_len, name, value_len, value) in fields {
        all.extend_from_slice(&name_len.to_be_bytes());
        all.extend_from_slice(name);
        all.extend_from_slice(&value_len.to_be_bytes());
        all.extend_from_slice(value);
    }
    out.extend_from_slice(&(all.len() as u32).to_be_bytes());
    out.extend_from_slice(&all);
    out
}

fn decode(header: &[u8]) -> Result<Vec<(String, String)>, DecodeError> {
    let word = 1u32 << 24 | header.len() as u32;
    let mut frame = word.to_be_bytes().to_vec();
    frame.extend_from_slice(header);
    let command = Command::decode(&frame)?;
    assert_eq!((command.code, command.version), (310, 401));
    assert_eq!((command.opaque, command.flag), (7, 2));
    assert_eq!(command.language, Language::GO);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(command
        .fields
        .iter()
        .map(|(name, value)| (text(name), text(value.raw())))
        .collect())
}

#[test]
fn a_field_that_comes_twice_has_its_last_value() {
    let header = header(
        b"",
        &[(1, b"a", 1, b"1"), (1, b"b", 1, b"2"), (1, b"a", 1, b"3")],
    );
    let fields = decode(&header).unwrap();
    let pairs: Vec<_> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(pairs, [("a", "3"), ("b", "2")]);
}

#[test]
fn an_empty_value_is_an_absent_field() {
    assert_eq!(decode(&header(b"x", &[(1, b"a", 0, b"")])), Ok(vec![]));
}

#[test]
fn lengths_that_lie_are_errors() {
    for lying in [
        (-1, b"a".as_slice(), 1, b"1".as_slice()),
        (2, b"a", 1, b"1"),
        (1, b"a", -1, b"1"),
        (1, b"a", 2, b"1"),
        (1, b"a", i32::MAX, b"1"),
        (i16::MAX, b"a", 1, b"1"),
    ] {
        assert!(decode(&header(b"", &[lying])).is_err(), "{lying:?}");
    }
}

#[test]
fn a_header_cut_or_continued_anywhere_is_an_error() {
    let whole = header(b"remark", &[(1, b"a", 5, b"value")]);
    assert!(decode(&whole).is_ok());
    for cut in 0..whole.len() {
        assert!(decode(&whole[..cut]).is_err(), "cut at {cut}");
    }
    assert!(decode(&[whole.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn too_many_fields_are_an_error() {
    let names: Vec<_> = (0..=FIELDS_MAX)
        .map(|number| format!("{number:04}"))
        .collect();
    let fields: Vec<_> = names
        .iter()
        .map(|name| (4, name.as_bytes(), 1, b"v".as_slice()))
        .collect();
    assert_eq!(
        decode(&header(b"", &fields[1..])).unwrap().len(),
        FIELDS_MAX
    );
    assert_eq!(
        decode(&header(b"", &fields)),
        Err(DecodeError::TooManyFields)
    );
}
