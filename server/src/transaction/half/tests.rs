use super::*;

fn host() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 10_911))
}

fn record(properties: &str) -> Vec<u8> {
    let draft = Draft {
        topic: TRANS_HALF_TOPIC,
        queue_id: 0,
        flag: 7,
        sys_flag: sysflag::COMPRESSED,
        born_ms: 1_000,
        born_host: SocketAddr::from(([10, 1, 1, 1], 5)),
        store_host: host(),
        reconsume_times: 2,
        prepared_transaction_offset: 0,
        properties: Text::plain(properties.as_bytes()),
        body: b"body",
    };
    let mut bytes = Vec::new();
    let placed = draft.append_to(&mut bytes);
    patch(&mut bytes, 42, 4_200, placed.store_time_at, 2_000);
    bytes
}

const SENT: &str = "UNIQ_KEY\u{1}K\u{2}TRAN_MSG\u{1}true\u{2}PGROUP\u{1}g\u{2}TAGS\u{1}A\u{2}\
                    REAL_TOPIC\u{1}t\u{2}REAL_QID\u{1}3\u{2}";

const DELAYS: Delays = Delays {
    levels: 18,
    max_ms: 86_400_000,
    now_ms: 1_000_000,
};

fn text(properties: &[u8]) -> String {
    String::from_utf8(properties.to_vec()).expect("text")
}

#[test]
fn a_committed_message_is_what_was_sent_and_says_of_which_transaction_it_is() {
    let bytes = record(SENT);
    let view = View::parse(&bytes).expect("a record");
    let made = committed(&view, DELAYS).expect("it says where it goes");
    let draft = made.draft();
    assert_eq!((draft.topic, draft.queue_id), ("t", 3));
    assert_eq!(draft.prepared_transaction_offset, 4_200);
    assert_eq!(
        draft.sys_flag,
        sysflag::COMPRESSED | sysflag::TRANSACTION_COMMIT
    );
    assert_eq!((draft.flag, draft.reconsume_times), (7, 2));
    assert_eq!((draft.born_ms, draft.born_host), (1_000, view.born_host));
    assert_eq!(draft.body, b"body");
    assert_eq!(
        text(&made.properties),
        "UNIQ_KEY\u{1}K\u{2}PGROUP\u{1}g\u{2}TAGS\u{1}A\u{2}"
    );
    assert_eq!(made.tag_hash, tag_hash("A"));
}

#[test]
fn a_delayed_one_waits_after_its_commit_as_long_as_its_level_says() {
    for (level, queue_id) in [("3", 2), ("99", 17)] {
        let bytes = record(&format!("{SENT}DELAY\u{1}{level}\u{2}"));
        let view = View::parse(&bytes).expect("a record");
        let made = committed(&view, DELAYS).expect("it says where it goes");
        assert_eq!((&*made.topic, made.queue_id), (SCHEDULE_TOPIC, queue_id));
        let kept = |name| properties::get_str(&made.properties, name);
        assert_eq!(kept(properties::REAL_TOPIC), Some("t"));
        assert_eq!(kept(properties::REAL_QID), Some("3"));
        assert_eq!(kept(properties::TRAN_MSG), None);
    }
}

#[test]
fn a_timed_one_waits_for_its_time_which_counts_from_the_commit() {
    for (wish, due_ms) in [
        ("TIMER_DELAY_SEC\u{1}5\u{2}", "1005000"),
        ("TIMER_DELIVER_MS\u{1}1000001\u{2}", "1000001"),
        ("TIMER_DELAY_SEC\u{1}86401\u{2}", "87400000"),
    ] {
        let bytes = record(&format!("{SENT}{wish}"));
        let view = View::parse(&bytes).expect("a record");
        let made = committed(&view, DELAYS).expect("it says where it goes");
        assert_eq!(
            (&*made.topic, made.queue_id),
            (TIMER_TOPIC, timed::QUEUE_ID)
        );
        let kept = |name| properties::get_str(&made.properties, name);
        assert_eq!(kept(properties::TIMER_OUT_MS), Some(due_ms));
        assert_eq!(kept(properties::REAL_TOPIC), Some("t"));
    }
    let bytes = record(&format!("{SENT}TIMER_DELIVER_MS\u{1}1\u{2}"));
    let view = View::parse(&bytes).expect("a record");
    let made = committed(&view, DELAYS).expect("it says where it goes");
    assert_eq!((&*made.topic, made.queue_id), ("t", 3), "its time has come");
}

#[test]
fn without_a_real_queue_it_can_go_nowhere() {
    for properties in ["", "REAL_TOPIC\u{1}t\u{2}REAL_QID\u{1}x\u{2}"] {
        let bytes = record(properties);
        let view = View::parse(&bytes).expect("a record");
        assert!(committed(&view, DELAYS).is_none());
    }
}

#[test]
fn a_copy_says_how_often_it_was_asked_about_and_where_it_began() {
    let bytes = record(SENT);
    let view = View::parse(&bytes).expect("a record");
    let first = Half::of(&view);
    assert_eq!((first.offset, first.log_offset), (42, LogOffset(4_200)));
    assert_eq!((first.group, first.checks, first.origin), ("g", 0, None));
    let made = again(&view, 42, 3).expect("short");
    assert_eq!((&*made.topic, made.queue_id), (TRANS_HALF_TOPIC, QUEUE_ID));
    let mut bytes = Vec::new();
    let placed = made.draft().append_to(&mut bytes);
    patch(&mut bytes, 50, 5_000, placed.store_time_at, 3_000);
    let copy = View::parse(&bytes).expect("a record");
    let half = Half::of(&copy);
    assert_eq!((half.checks, half.origin), (3, Some(42)));
    assert!(!half.is_rocketmqs_copy);
    assert_eq!(real(&copy), Some(("t", 3)));
    let final_one = committed(&copy, DELAYS).expect("it says where it goes");
    assert_eq!(properties::get(&final_one.properties, ORIGIN), None);
}

#[test]
fn a_copy_of_rocketmqs_is_known_as_such_and_becomes_ours_when_it_is_copied() {
    let theirs = format!(
        "{SENT}TRAN_PREPARED_QUEUE_OFFSET\u{1}40\u{2}CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}90\u{2}"
    );
    let bytes = record(&theirs);
    let view = View::parse(&bytes).expect("a record");
    let half = Half::of(&view);
    assert_eq!((half.origin, half.is_rocketmqs_copy), (Some(40), true));
    assert_eq!(half.immunity_ms, Some(90_000));
    let made = again(&view, 40, 0).expect("short");
    let kept = |name| properties::get_str(&made.properties, name);
    assert_eq!(kept(properties::TRAN_PREPARED_QUEUE_OFFSET), None);
    assert_eq!(kept(ORIGIN), Some("40"));
    assert_eq!(kept(properties::TRANSACTION_CHECK_TIMES), None);
}

#[test]
fn an_origin_in_front_of_which_nothing_can_lie_does_not_count() {
    for origin in ["42", "43", "x", "-1"] {
        let bytes = record(&format!("{SENT}{ORIGIN}\u{1}{origin}\u{2}"));
        assert_eq!(
            Half::of(&View::parse(&bytes).expect("a record")).origin,
            None
        );
    }
}

#[test]
fn one_that_was_given_up_can_be_found_by_its_half_message_and_resumed() {
    let bytes = record(&format!("{SENT}TRANSACTION_CHECK_TIMES\u{1}15\u{2}"));
    let view = View::parse(&bytes).expect("a record");
    let made = given_up(&view, 40);
    assert_eq!(made.topic, TRANS_CHECK_MAX_TIME_TOPIC);
    assert_eq!(made.draft().prepared_transaction_offset, 4_200);
    let mut bytes = Vec::new();
    made.draft().append_to(&mut bytes);
    let view = View::parse(&bytes).expect("a record");
    let made = resumed(&view).expect("short");
    assert_eq!(made.topic, TRANS_HALF_TOPIC);
    let kept = |name| properties::get_str(&made.properties, name);
    assert_eq!(kept(properties::TRANSACTION_CHECK_TIMES), Some("0"));
    assert_eq!(kept(ORIGIN), Some("40"), "it is the same transaction");
    assert_eq!(made.draft().prepared_transaction_offset, 0);
}

#[test]
fn a_producer_is_asked_about_the_message_it_sent() {
    let bytes = record(SENT);
    let view = View::parse(&bytes).expect("a record");
    let place = Appended {
        queue_offset: 50,
        log_offset: 5_000,
        store_ms: 3_000,
    };
    let question = question(&view, 2, place).expect("it says where it goes");
    let view = View::parse(&question).expect("a record");
    assert_eq!((&*view.topic_str(), view.queue_id), ("t", 3));
    assert_eq!((view.queue_offset, view.log_offset), (50, 5_000));
    assert_eq!((view.store_ms, view.body), (3_000, &b"body"[..]));
    let checks = view.property(properties::TRANSACTION_CHECK_TIMES);
    assert_eq!(checks, Some(&b"2"[..]));
    assert_eq!(view.property(ORIGIN), None);
}

#[test]
fn properties_that_a_copy_would_cut_short_are_left_as_they_are() {
    let long = "v".repeat(PROPERTIES_BYTES_MAX - SENT.len() - 4);
    let bytes = record(&format!("{SENT}k\u{1}{long}\u{2}"));
    let view = View::parse(&bytes).expect("a record");
    assert!(again(&view, 42, 1).is_none());
    assert!(given_up(&view, 42).fits());
}
