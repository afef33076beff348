use proptest::prelude::*;

use super::*;
use crate::sysflag;
use crate::text::Text;

fn host(v6: bool, port: u16) -> SocketAddr {
    let ip = if v6 {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3))
    };
    SocketAddr::new(ip, port)
}

fn draft<'a>(topic: &'a str, properties: Text<'a>, body: &'a [u8]) -> Draft<'a> {
    Draft {
        topic,
        queue_id: 3,
        flag: -1,
        sys_flag: sysflag::COMPRESSED,
        born_ms: 1_700_000_000_000,
        born_host: host(false, 50_000),
        store_host: host(false, 10_911),
        reconsume_times: 2,
        prepared_transaction_offset: 5,
        properties,
        body,
    }
}

proptest! {
    #[test]
    fn a_draft_reads_back_once_patched(
        topic in "[a-zA-Z0-9_-]{1,200}",
        properties in prop::collection::vec(any::<u8>(), 0..300),
        body in prop::collection::vec(any::<u8>(), 0..300),
        (born_v6, store_v6) in any::<(bool, bool)>(),
        (queue_id, flag, reconsume_times) in any::<(i32, i32, i32)>(),
        (queue_offset, log_offset) in any::<(u64, u64)>(),
        store_ms in any::<i64>(),
        before in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let mut message = draft(&topic, Text::plain(&properties), &body);
        message.born_host = host(born_v6, 1);
        message.store_host = host(store_v6, 65_535);
        (message.queue_id, message.flag) = (queue_id, flag);
        message.reconsume_times = reconsume_times;
        let mut out = before.clone();
        let placed = message.append_to(&mut out);
        prop_assert_eq!(placed.len, message.encoded_len());
        prop_assert_eq!(out.len(), before.len() + placed.len);
        let record = &mut out[before.len()..];
        patch(record, queue_offset, log_offset, placed.store_time_at, store_ms);

        let view = View::parse(record).unwrap();
        prop_assert_eq!(view.check_body(), Ok(()));
        prop_assert_eq!(view.magic, if topic.len() > 127 { MAGIC_V2 } else { MAGIC_V1 });
        prop_assert_eq!((view.topic, view.body), (topic.as_bytes(), body.as_slice()));
        prop_assert_eq!(view.properties, properties.as_slice());
        prop_assert_eq!(View::properties_of(record), Some(properties.as_slice()));
        prop_assert_eq!((view.queue_id, view.flag), (queue_id, flag));
        prop_assert_eq!((view.queue_offset, view.log_offset), (queue_offset, log_offset));
        prop_assert_eq!((view.born_ms, view.store_ms), (message.born_ms, store_ms));
        prop_assert_eq!((view.born_host, view.store_host), (message.born_host, message.store_host));
        prop_assert_eq!(view.reconsume_times, reconsume_times);
        prop_assert_eq!(view.prepared_transaction_offset, 5);
        prop_assert_eq!(view.store_time_at, placed.store_time_at);
        prop_assert_eq!(view.sys_flag & sysflag::COMPRESSED, sysflag::COMPRESSED);
        let place = parse_message_id(&view.message_id());
        prop_assert_eq!(place, Some((message.store_host, log_offset)));
    }

    #[test]
    fn arbitrary_bytes_are_a_record_or_an_error(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        magic in prop::sample::select(vec![MAGIC_V1, MAGIC_V2, MAGIC_BLANK, 0]),
        total in 0..400u32,
    ) {
        if bytes.len() >= HEADER_BYTES {
            put(&mut bytes, TOTAL_AT, &total.to_be_bytes());
            put(&mut bytes, MAGIC_AT, &magic.to_be_bytes());
        }
        if let Ok(view) = View::parse(&bytes) {
            prop_assert_eq!(view.bytes.len(), total as usize);
            let _ = view.check_body();
        }
    }

    #[test]
    fn a_damaged_record_is_a_record_or_an_error(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut out = Vec::new();
        draft("topic", Text::plain(b"a\x01b\x02"), b"body").append_to(&mut out);
        let whole = out.len();
        prop_assert!(View::parse(&out[..cut.index(whole)]).is_err());
        let at = at.index(whole);
        out[at] = byte;
        let _ = View::parse(&out);
    }

    #[test]
    fn arbitrary_text_is_a_message_id_or_none(id in "[0-9A-Fa-f]{30,34}|[0-9A-Fa-f]{56}|\\PC{0,32}") {
        if let Some((host, offset)) = parse_message_id(&id) {
            // Only the low half of the port field comes back.
            prop_assert_eq!(parse_message_id(&message_id(host, offset)), Some((host, offset)));
        }
    }
}

#[test]
fn escaped_properties_are_stored_unescaped() {
    let mut out = Vec::new();
    let escaped = Text::scanned(br"TAGS\u0001\u4e2d\u0002", true);
    let message = draft("t", escaped, b"");
    let placed = message.append_to(&mut out);
    assert_eq!(placed.len, message.encoded_len());
    let view = View::parse(&out).unwrap();
    assert_eq!(view.property("TAGS"), Some("中".as_bytes()));
}

#[test]
fn an_ipv4_address_in_ipv6_clothes_is_stored_as_ipv4() {
    let mut message = draft("t", Text::default(), b"");
    let mapped = Ipv4Addr::new(10, 1, 2, 3).to_ipv6_mapped();
    message.born_host = SocketAddr::new(IpAddr::V6(mapped), 50_000);
    let mut out = Vec::new();
    message.append_to(&mut out);
    let view = View::parse(&out).unwrap();
    assert_eq!(view.born_host, host(false, 50_000));
    assert_eq!(view.sys_flag & sysflag::BORN_HOST_V6, 0);
}

#[test]
fn the_smallest_record_has_the_smallest_length() {
    let mut out = Vec::new();
    draft("", Text::default(), b"").append_to(&mut out);
    assert_eq!(out.len(), RECORD_BYTES_MIN);
    assert!(View::parse(&out).is_ok());
}

#[test]
fn a_blank_is_walked_over_and_is_no_message() {
    let mut log = Vec::new();
    draft("topic", Text::default(), b"body").append_to(&mut log);
    let first = len_at(&log).unwrap();
    assert!(!first.is_blank() && first.total == log.len());
    blank(&mut log, 20);
    let rest = &log[first.total..];
    let filler = len_at(rest).unwrap();
    assert!(filler.is_blank() && filler.total == 20);
    assert_eq!(View::parse(rest), Err(RecordError::Magic(MAGIC_BLANK)));
}

#[test]
fn lengths_that_cannot_be_are_errors() {
    let header = |total: u32, magic: u32| {
        let mut bytes = total.to_be_bytes().to_vec();
        bytes.extend_from_slice(&magic.to_be_bytes());
        len_at(&bytes)
    };
    assert!(header(90, MAGIC_V1).is_err() && header(91, MAGIC_V1).is_ok());
    assert!(header(91, MAGIC_V2).is_err() && header(92, MAGIC_V2).is_ok());
    assert!(header(7, MAGIC_BLANK).is_err() && header(8, MAGIC_BLANK).is_ok());
    assert!(header(u32::MAX, MAGIC_V1).is_err());
    assert_eq!(header(0, 0), Err(RecordError::Magic(0)));
    assert_eq!(len_at(&[0; 7]), Err(RecordError::Short { present: 7 }));
}

#[test]
fn a_changed_body_does_not_pass_its_checksum() {
    let mut out = Vec::new();
    draft("topic", Text::default(), b"body").append_to(&mut out);
    let at = out.windows(4).position(|four| four == b"body").unwrap();
    out[at] ^= 1;
    let view = View::parse(&out).unwrap();
    assert!(matches!(
        view.check_body(),
        Err(RecordError::BodyCrc { .. })
    ));
}

#[test]
fn records_one_behind_the_other_end_at_what_is_none() {
    let mut bytes = Vec::new();
    for body in [b"one".as_slice(), b"", b"three"] {
        draft("t", Text::plain(b""), body).append_to(&mut bytes);
    }
    let bodies = |bytes| -> Vec<_> {
        views(bytes)
            .map(|view| view.map(|view| view.body))
            .collect()
    };
    let whole = [Ok(b"one".as_slice()), Ok(b""), Ok(b"three")];
    assert_eq!(bodies(&bytes), whole);
    assert_eq!(bodies(b""), []);
    let cut = bodies(&bytes[..bytes.len() - 1]);
    assert_eq!(cut[..2], whole[..2]);
    assert!(matches!(cut[2..], [Err(RecordError::Length { .. })]));
}
