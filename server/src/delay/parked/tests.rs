use super::*;
use crate::delay::checkpoint::LATE_MAX;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Step {
    /// So many ms from now.
    Send(i64),
    Pass(i64),
    Deliver(usize),
    /// No more than so many are looked at before.
    LookAndDeliver(u64),
    Save,
    /// The task starts again from what was saved last.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (-3_000i64..20_000).prop_map(Step::Send),
        4 => (0i64..4_000).prop_map(Step::Pass),
        4 => (1usize..6).prop_map(Step::Deliver),
        4 => (1u64..6).prop_map(Step::LookAndDeliver),
        2 => Just(Step::Save),
        1 => Just(Step::Crash),
    ]
}

struct Run {
    /// Due times by offset.
    queue: Vec<i64>,
    now_ms: i64,
    parked: Parked,
    saved: Option<Checkpoint>,
    delivered: BTreeSet<u64>,
    /// As of the last save.
    delivered_before: BTreeSet<u64>,
    /// That, and what this life has delivered.
    known: BTreeSet<u64>,
}

impl Run {
    fn look(&mut self) {
        self.look_at(u64::MAX);
    }

    fn look_at(&mut self, most: u64) {
        let next = self.parked.next();
        let end = next.saturating_add(most).min(self.queue.len() as u64);
        for offset in next..end {
            let timer = Timer {
                due_ms: self.queue[offset as usize],
                offset,
                place: LogOffset(offset * 1_000),
            };
            match offset % 2 {
                0 => self.parked.add(timer),
                _ => self.parked.add_read(timer, b"record", self.now_ms),
            };
            self.parked.set_next(offset + 1);
        }
    }

    fn deliver(&mut self, most: usize) -> Result<(), TestCaseError> {
        while let Some(timer) = self.parked.begin_reading(self.now_ms) {
            self.parked.was_read(timer.key(), vec![1]);
        }
        let due = self.parked.due(self.now_ms).take(most);
        for key in due.map(|(key, _)| key).collect::<Vec<_>>() {
            prop_assert!(key.0 <= self.now_ms, "early");
            prop_assert!(
                !self.delivered_before.contains(&key.1),
                "it was delivered before the last save"
            );
            self.delivered.insert(key.1);
            prop_assert!(self.known.insert(key.1), "twice in one life");
            self.parked.done(key);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn none_is_early_none_is_lost_and_none_comes_again_that_was_delivered_before_the_last_save(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        let mut run = Run {
            queue: Vec::new(),
            now_ms: 1_000_000,
            parked: Parked::restore(None, 0, 0),
            saved: None,
            delivered: BTreeSet::new(),
            delivered_before: BTreeSet::new(),
            known: BTreeSet::new(),
        };
        for step in steps {
            match step {
                Step::Send(wait_ms) => run.queue.push(run.now_ms + wait_ms),
                Step::Pass(ms) => run.now_ms += ms,
                Step::Deliver(most) => {
                    run.look();
                    run.deliver(most)?;
                }
                Step::LookAndDeliver(most) => {
                    run.look_at(most);
                    run.deliver(usize::MAX)?;
                }
                Step::Save => {
                    if let Some(checkpoint) = run.parked.checkpoint(LATE_MAX) {
                        run.saved = Some(checkpoint);
                        run.delivered_before = run.known.clone();
                    }
                }
                Step::Crash => {
                    let max = run.queue.len() as u64;
                    run.parked = Parked::restore(run.saved.clone(), 0, max);
                    run.known = run.delivered_before.clone();
                }
            }
        }
        run.look();
        run.now_ms += 1_000_000;
        run.deliver(usize::MAX)?;
        prop_assert_eq!(run.delivered.len(), run.queue.len(), "each was delivered");
        prop_assert_eq!(run.parked.len(), 0);
    }
}

#[test]
fn what_is_being_moved_is_parked_until_it_lies_elsewhere() {
    let mut parked = Parked::restore(None, 0, 0);
    for offset in 0..3 {
        parked.add(Timer {
            due_ms: 50_000,
            offset,
            place: LogOffset(offset * 10),
        });
        parked.set_next(offset + 1);
    }
    parked.begin_moving(LogOffset(20));
    let moving = parked.to_move(10);
    assert_eq!(moving.len(), 2);
    assert_eq!(
        parked.checkpoint(LATE_MAX).map(|saved| saved.first),
        Some(0)
    );
    parked.moved(moving[0].key());
    assert_eq!(
        parked.checkpoint(LATE_MAX).map(|saved| saved.first),
        Some(1)
    );
    parked.end_moving();
    assert_eq!(parked.len(), 2);
    parked.begin_moving(LogOffset(20));
    assert_eq!(parked.to_move(10).len(), 1);
}

#[test]
fn what_is_withdrawn_stays_so_until_a_start_has_looked_at_all_of_it() {
    let withdrawal = Timer {
        due_ms: 5_000,
        offset: 1,
        place: LogOffset(1_000),
    };
    let mut parked = Parked::restore(None, 0, 0);
    parked.add(withdrawal);
    parked.add_withdrawal(1, b"t+1", 5_000);
    parked.set_next(10);
    let saved = parked.checkpoint(LATE_MAX).expect("all is looked at");

    // The one that it withdraws was appended again, and lies behind it now.
    let mut parked = Parked::restore(Some(saved), 0, 12);
    assert_eq!(parked.named_withdrawal(), Some(1));
    parked.heard_of(1);
    assert_eq!(parked.named_withdrawal(), None);
    parked.withdraw(b"t+1", 5_000);
    parked.set_heard(12);
    assert!(parked.is_starting());
    parked.add(withdrawal);
    parked.add_withdrawal(1, b"t+1", 5_000);
    parked.set_next(4);
    assert_eq!(parked.begin_reading(6_000), Some(withdrawal));
    parked.end_withdrawal(withdrawal.key(), b"t+1", 6_000);
    parked.all_due_is_done();
    assert!(parked.is_withdrawn(b"t+1"), "nobody knows what follows");
    assert_eq!(
        parked.checkpoint(LATE_MAX),
        None,
        "it would not name it any more"
    );
    parked.set_next(12);
    assert!(parked.is_withdrawn(b"t+1"), "what was found may be due");
    parked.all_due_is_done();
    assert!(!parked.has_withdrawn());
    let saved = parked.checkpoint(LATE_MAX).expect("all is looked at");
    assert_eq!(saved.withdrawals, Some(BTreeSet::new()));
}

#[test]
fn where_it_is_not_known_what_is_withdrawn_a_start_looks_at_all_of_it_first() {
    let saved = Checkpoint {
        first: 2,
        next: 10,
        ..Checkpoint::default()
    };
    assert!(!Parked::restore(Some(saved.clone()), 0, 10).is_starting());
    let known = Checkpoint {
        withdrawals: Some(BTreeSet::new()),
        ..saved
    };
    assert!(Parked::restore(Some(known), 0, 10).is_starting());
}

#[test]
fn a_name_is_withdrawn_until_its_time_is_over_and_all_that_was_due_is_done() {
    let timer = |due_ms, offset| Timer {
        due_ms,
        offset,
        place: LogOffset(offset * 1_000),
    };
    let (early, late) = (timer(4_000, 0), timer(5_000, 1));
    let mut parked = Parked::default();
    for withdrawal in [early, late] {
        parked.add(withdrawal);
        parked.add_withdrawal(withdrawal.offset, b"t+1", withdrawal.due_ms);
        parked.set_next(withdrawal.offset + 1);
    }
    parked.begin_reading(4_000);
    parked.end_withdrawal(early.key(), b"t+1", 4_000);
    parked.all_due_is_done();
    assert!(parked.is_withdrawn(b"t+1") && !parked.is_withdrawn(b"t+2"));
    parked.begin_reading(5_000);
    parked.end_withdrawal(late.key(), b"t+1", 5_000);
    assert!(parked.is_withdrawn(b"t+1"), "what it withdraws may be due");
    let saved = parked.checkpoint(LATE_MAX).expect("all is looked at");
    assert!(!saved.is_done(&late), "a restart has to hear of it");
    assert_eq!(saved.withdrawals, Some(BTreeSet::from([1])));
    parked.all_due_is_done();
    assert!(!parked.has_withdrawn());
    let saved = parked.checkpoint(LATE_MAX).expect("all is looked at");
    assert!(saved.is_done(&late));
    assert_eq!(saved.withdrawals, Some(BTreeSet::new()));
}

#[test]
fn one_that_cannot_be_read_is_tried_again_and_keeps_nobody_waiting() {
    let mut parked = Parked::default();
    let timers = [0, 1].map(|offset| Timer {
        due_ms: 5_000 + offset as i64,
        offset,
        place: LogOffset(offset * 1_000),
    });
    for timer in timers {
        parked.add(timer);
        parked.set_next(timer.offset + 1);
    }
    assert_eq!(parked.begin_reading(5_000), Some(timers[0]));
    parked.not_read(timers[0].key(), 6_000);
    assert_eq!(parked.begin_reading(5_000), Some(timers[1]));
    parked.was_read(timers[1].key(), vec![1]);
    parked.done(timers[1].key());
    assert_eq!(parked.begin_reading(5_999), None);
    assert_eq!(parked.next_event_ms(), Some(6_000));
    let saved = parked.checkpoint(LATE_MAX).expect("all is looked at");
    assert!(!saved.is_done(&timers[0]) && saved.is_done(&timers[1]));
    assert_eq!((saved.first, parked.len()), (0, 1));
    assert_eq!(parked.begin_reading(6_000), Some(timers[0]));
}

/// So many timers, each due before the one in front of it.
fn backwards(count: u64) -> Vec<Timer> {
    let timer = |offset| Timer {
        due_ms: 100_000_000 - 100 * offset as i64,
        offset,
        place: LogOffset(offset * 1_000),
    };
    (0..count).map(timer).collect()
}

#[test]
fn a_move_that_is_cut_short_leaves_each_timer_once() {
    let mut parked = Parked::default();
    let timers = backwards(2_000);
    for timer in &timers {
        parked.add(*timer);
        parked.set_next(timer.offset + 1);
    }
    // Some of them are read already.
    while parked.begin_reading(100_000_000 - 100 * 1_990).is_some() {}
    parked.begin_moving(LogOffset(1_999_000));
    let moving = parked.to_move(512);
    let copies: Vec<Timer> = (2_000..)
        .zip(&moving)
        .map(|(offset, timer)| Timer {
            offset,
            place: LogOffset(offset * 1_000),
            ..*timer
        })
        .collect();
    moving.iter().for_each(|timer| parked.moved(timer.key()));
    parked.end_moving();
    assert_eq!((moving.len(), parked.len()), (512, 1_488));

    let saved = parked.checkpoint(LATE_MAX).expect("all is looked at");
    let mut parked = Parked::restore(Some(saved), 0, 2_512);
    let next = parked.next();
    for timer in timers.iter().chain(&copies) {
        if timer.offset >= next {
            parked.add(*timer);
            parked.set_next(timer.offset + 1);
        }
    }
    assert_eq!(parked.len(), 2_000);
}

#[test]
fn a_stop_in_the_middle_of_a_large_start_keeps_what_was_delivered() {
    let timers = backwards(10_000);
    let known = Checkpoint {
        next: 10_000,
        withdrawals: Some(BTreeSet::new()),
        ..Checkpoint::default()
    };
    let mut parked = Parked::restore(Some(known), 0, 10_000);
    assert!(parked.is_starting());
    let look = |parked: &mut Parked, end| {
        for timer in &timers[parked.next() as usize..end] {
            parked.add(*timer);
            parked.set_next(timer.offset + 1);
        }
    };
    look(&mut parked, 2_000);
    let mut delivered = BTreeSet::new();
    while let Some(timer) = parked.begin_reading(100_000_000) {
        parked.was_read(timer.key(), vec![1]);
        parked.done(timer.key());
        delivered.insert(timer.offset);
    }
    assert_eq!(delivered.len(), 2_000);

    look(&mut parked, 10_000);
    assert_eq!(parked.checkpoint(LATE_MAX), None, "while it runs");
    let saved = parked.checkpoint(usize::MAX).expect("all is looked at");
    let again = timers.iter().filter(|timer| !saved.is_done(timer));
    let again: BTreeSet<u64> = again.map(|timer| timer.offset).collect();
    assert!(again.is_disjoint(&delivered));
    assert_eq!(again.len() + delivered.len(), 10_000);
}
