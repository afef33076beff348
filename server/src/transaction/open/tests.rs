use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const GROUP: &str = "producers";
const RECORD_BYTES: u64 = 100;

fn half(offset: u64, origin: Option<u64>) -> Half<'static> {
    Half {
        offset,
        log_offset: LogOffset(offset * RECORD_BYTES),
        store_ms: 0,
        born_ms: 0,
        group: GROUP,
        checks: 0,
        immunity_ms: None,
        origin,
        is_rocketmqs_copy: false,
    }
}

fn offsets(found: Vec<Found>) -> Vec<u64> {
    found.into_iter().map(|found| found.offset).collect()
}

#[test]
fn a_transaction_is_found_by_its_newest_copy_and_led_to_from_its_origin() {
    let mut open = Open::starting_at(5);
    assert_eq!(open.add(&half(5, None), 1_000), None);
    assert_eq!(open.add(&half(6, None), 1_000), None);
    assert_eq!(open.add(&half(7, Some(5)), 2_000), Some(5));
    assert_eq!((open.get(5), open.current(5)), (None, Some(7)));
    assert_eq!(open.get(7).map(|found| found.origin), Some(5));
    assert_eq!(open.add(&half(8, Some(5)), 2_000), Some(7));
    assert_eq!((open.current(5), open.current(7)), (Some(8), None));
    let found = open.get(8).expect("open");
    assert_eq!((found.log_offset, &*found.group), (LogOffset(800), GROUP));
    assert_eq!(open.at_log_offset(LogOffset(800)), Some(8));
    assert_eq!(open.at_log_offset(LogOffset(700)), None);
    assert!(open.close(8) && !open.close(8));
    assert_eq!(open.current(5), None, "nothing of it is left");
    assert_eq!((open.len(), open.done_to()), (1, 6));
    assert!(open.moved.is_empty() && open.far.is_empty());
}

#[test]
fn a_copy_knows_where_it_began_however_far_that_is() {
    let mut open = Open::starting_at(1);
    open.add(&half(1, None), 0);
    let far = u64::from(FAR);
    for (copy, before) in [(far, 1), (far + 1, far), (2 * far, far + 1)] {
        assert_eq!(open.add(&half(copy, Some(1)), 0), Some(before));
        assert_eq!(open.get(copy).map(|found| found.origin), Some(1));
        assert_eq!(open.current(1), Some(copy));
    }
    assert!(open.close(2 * far));
    assert!(open.moved.is_empty() && open.far.is_empty());
}

#[test]
fn what_is_due_is_handed_out_once_and_never_early() {
    let mut open = Open::default();
    for offset in 0..10 {
        open.add(&half(offset, None), 1_000 + offset as i64);
    }
    open.close(3);
    assert_eq!(open.next_due(), Some(1_000));
    assert!(open.take_due(999, 100).is_empty());
    assert_eq!(offsets(open.take_due(1_000, 100)), [0]);
    assert_eq!(open.next_due(), Some(1_100), "deadlines are rounded up");
    let mut taken = offsets(open.take_due(1_100, 4));
    taken.extend(offsets(open.take_due(1_100, 100)));
    taken.sort_unstable();
    assert_eq!(taken, [1, 2, 4, 5, 6, 7, 8, 9]);
    assert_eq!(open.next_due(), None);
    open.wait_until(4, 5_001);
    assert_eq!(open.next_due(), Some(5_100));
}

#[test]
fn a_million_open_transactions_are_a_few_words_each() {
    let mut open = Open::default();
    const OPEN: u64 = 1_000_000;
    let bytes = |open: &Open| {
        let entries = open.entries.capacity() * size_of::<Entry>();
        let due: usize = open.due.values().map(|some| some.capacity() * 8).sum();
        let moved = open.moved.capacity() * size_of::<(u64, u64)>();
        (entries + due + moved) >> 20
    };
    for offset in 0..OPEN {
        open.add(&half(offset, None), offset as i64 / 100);
    }
    assert!(bytes(&open) < 50, "{} MiB", bytes(&open));
    // All of them were asked about.
    open.take_due(i64::MAX, usize::MAX);
    for origin in 0..OPEN {
        open.add(&half(OPEN + origin, Some(origin)), origin as i64 / 100);
    }
    assert_eq!(open.len() as u64, OPEN);
    assert!(bytes(&open) < 100, "{} MiB", bytes(&open));
}

#[test]
fn one_that_stays_open_does_not_keep_all_that_came_behind_it() {
    let mut open = Open::default();
    open.add(&half(0, None), 0);
    for offset in 1..100_000 {
        open.add(&half(offset, None), 0);
        open.close(offset);
    }
    assert!(open.entries.len() <= 2 * GONE_MAX, "{}", open.entries.len());
    assert_eq!((open.len(), open.span()), (1, 100_000));
}

#[derive(Clone, Debug)]
enum Step {
    Send,
    /// A copy of the one of that number among the open ones.
    Copy(usize),
    Close(usize),
    Wait(i64),
    LookAtDue,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Send),
        2 => any::<usize>().prop_map(Step::Copy),
        3 => any::<usize>().prop_map(Step::Close),
        2 => (1i64..3_000).prop_map(Step::Wait),
        2 => Just(Step::LookAtDue),
    ]
}

proptest! {
    /// Against a table of the open transactions by their origin.
    #[test]
    fn it_knows_what_a_table_would(steps in proptest::collection::vec(step(), 1..300)) {
        const PATIENCE_MS: i64 = 1_000;
        let mut open = Open::default();
        // Origin to newest offset, and when it is due.
        let mut table: BTreeMap<u64, (u64, i64)> = BTreeMap::new();
        let (mut next, mut now) = (0u64, 0i64);
        for step in steps {
            let chosen = |number: usize, table: &BTreeMap<u64, (u64, i64)>| {
                let number = number.checked_rem(table.len())?;
                table.iter().nth(number).map(|(&origin, &(offset, _))| (origin, offset))
            };
            match step {
                Step::Send => {
                    prop_assert_eq!(open.add(&half(next, None), now + PATIENCE_MS), None);
                    table.insert(next, (next, now + PATIENCE_MS));
                    next += 1;
                }
                Step::Copy(number) => {
                    let Some((origin, before)) = chosen(number, &table) else { continue };
                    let superseded = open.add(&half(next, Some(origin)), now + PATIENCE_MS);
                    prop_assert_eq!(superseded, Some(before));
                    table.insert(origin, (next, now + PATIENCE_MS));
                    next += 1;
                }
                Step::Close(number) => {
                    let Some((origin, offset)) = chosen(number, &table) else { continue };
                    prop_assert!(open.close(offset));
                    table.remove(&origin);
                }
                Step::Wait(ms) => now += ms,
                Step::LookAtDue => {
                    let taken: BTreeSet<u64> = offsets(open.take_due(now, usize::MAX)).into_iter().collect();
                    for (offset, due) in table.values_mut() {
                        if taken.contains(offset) {
                            prop_assert!(*due <= now, "{} is early", offset);
                            *due = now + PATIENCE_MS;
                            open.wait_until(*offset, *due);
                        } else {
                            prop_assert!(*due > now - DUE_STEP_MS, "{} is late", offset);
                        }
                    }
                }
            }
            prop_assert_eq!(open.len(), table.len());
            let oldest = table.values().map(|(offset, _)| *offset).min();
            prop_assert_eq!(open.done_to(), oldest.unwrap_or(next));
            for (&origin, &(offset, _)) in &table {
                prop_assert_eq!(open.current(origin), Some(offset));
                let found = open.get(offset).map(|found| found.origin);
                prop_assert_eq!(found, Some(origin));
            }
            let below = LogOffset(next * RECORD_BYTES / 2);
            let mut old: Vec<u64> = table.values().map(|(offset, _)| *offset)
                .filter(|offset| offset * RECORD_BYTES < below.0).collect();
            old.sort_unstable();
            prop_assert_eq!(offsets(open.below(below, usize::MAX)), old);
        }
    }
}
