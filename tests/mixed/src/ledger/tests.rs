use super::*;

const PATIENCE: Patience = Patience {
    kill_ms: 10_000,
    members_ms: 3_000,
    retried_ms: 12_000,
    asked_ms: 15_000,
};

fn ledger() -> Ledger {
    Ledger::new(4, PATIENCE)
}

fn send(ledger: &mut Ledger, kind: Kind, due_ms: i64) -> Stamp {
    let stamp = Stamp {
        kind,
        key: 0,
        number: ledger.begin(kind),
        due_ms,
    };
    ledger.acknowledged(&stamp);
    stamp
}

fn at(stamp: Stamp, now_ms: i64) -> Delivery {
    Delivery {
        stamp,
        now_ms,
        stored_ms: now_ms,
        is_retry: false,
    }
}

#[test]
fn what_is_acknowledged_is_missing_until_every_group_has_it() {
    let mut ledger = ledger();
    let stamp = send(&mut ledger, Kind::Plain, 0);
    let missing = |ledger: &Ledger, group| ledger.summary(group).missing;
    assert_eq!(missing(&ledger, Group::Steady), 1);
    ledger.delivered(Group::Steady, &at(stamp, 1), false);
    assert_eq!(missing(&ledger, Group::Steady), 0);
    assert_eq!(missing(&ledger, Group::Moving), 1);
    assert_eq!(ledger.missing(Group::Moving), ["Plain 0"]);
    assert_eq!(missing(&ledger, Group::OrderedSteady), 0);
}

#[test]
fn a_second_delivery_is_wrong_unless_something_happened() {
    let mut ledger = ledger();
    let stamp = send(&mut ledger, Kind::Plain, 0);
    ledger.delivered(Group::Steady, &at(stamp, 100_000), false);
    let kill = ledger.events().begin(None, 100_500);
    ledger.delivered(Group::Steady, &at(stamp, 101_000), false);
    ledger.events().end(kill, 101_000);
    assert_eq!(ledger.summary(Group::Steady).allowed.after_kill, 1);
    assert_eq!(*ledger.wrong(), Wrong::default());
    ledger.delivered(Group::Steady, &at(stamp, 111_001), false);
    assert_eq!(ledger.wrong().unexplained, 1);
    assert_eq!(ledger.examples().len(), 1);
}

#[test]
fn what_was_sent_twice_may_come_twice_at_any_time() {
    let mut ledger = ledger();
    let stamp = send(&mut ledger, Kind::Timed, 0);
    ledger.doubtful(&stamp);
    for _ in 0..2 {
        ledger.delivered(Group::Moving, &at(stamp, 1), false);
    }
    assert_eq!(ledger.summary(Group::Moving).allowed.sent_twice, 1);
    assert_eq!(*ledger.wrong(), Wrong::default());
}

#[test]
fn a_rolled_back_message_and_an_early_one_are_wrong() {
    let mut ledger = ledger();
    let rolled_back = send(&mut ledger, Kind::RollbackLater, 0);
    let due = send(&mut ledger, Kind::Timed, 1_000);
    ledger.delivered(Group::Steady, &at(due, 1_000), false);
    assert_eq!(*ledger.wrong(), Wrong::default());
    ledger.delivered(Group::Moving, &at(due, 999), false);
    ledger.delivered(Group::Moving, &at(rolled_back, 1), false);
    assert_eq!((ledger.wrong().early, ledger.wrong().rolled_back), (1, 1));
}

#[test]
fn an_ordered_key_goes_on_and_its_gaps_and_doubles_are_counted() {
    let mut ledger = ledger();
    let of = |number| Stamp {
        kind: Kind::Ordered,
        key: 2,
        number,
        due_ms: 0,
    };
    for number in 0..4 {
        ledger.acknowledged(&of(number));
    }
    ledger.doubtful(&of(1));
    for number in [0, 1, 1, 2] {
        ledger.delivered_in_order(Group::OrderedSteady, &at(of(number), 1));
    }
    let summary = ledger.summary(Group::OrderedSteady);
    assert_eq!((summary.missing, summary.allowed.sent_twice), (1, 1));
    assert_eq!(*ledger.wrong(), Wrong::default());
    ledger.delivered_in_order(Group::OrderedSteady, &at(of(0), 1));
    ledger.delivered_in_order(Group::OrderedSteady, &at(of(5), 1));
    assert_eq!((ledger.wrong().unexplained, ledger.wrong().gaps), (1, 1));
}

#[test]
fn counts_of_what_was_sent_leave_out_what_is_rolled_back() {
    let mut ledger = ledger();
    for kind in [Kind::Plain, Kind::Level, Kind::Commit, Kind::CommitLater] {
        send(&mut ledger, kind, 0);
    }
    let rolled_back = send(&mut ledger, Kind::Rollback, 0);
    ledger.doubtful(&rolled_back);
    let sent = ledger.sent();
    assert_eq!((sent.plain, sent.delayed, sent.transactions), (1, 1, 2));
    assert_eq!((sent.rolled_back, sent.doubtful), (1, 1));
}
