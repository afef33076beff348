//! The state machine against a naive model: every message is acked, visible or hidden, and none is ever gone.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn take(offsets: &[u64], next: u64, pop_ms: i64, due_ms: i64) -> Op {
    Op::Take {
        offsets: offsets.to_vec(),
        next,
        pop_ms,
        due_ms,
        attempt: String::new(),
    }
}

fn visible(queue: &PopQueue, now_ms: i64) -> Vec<u64> {
    queue.visible(now_ms).collect()
}

#[test]
fn a_popped_message_is_hidden_until_it_is_due_and_gone_only_when_acked() {
    let mut queue = PopQueue::new(5);
    queue.apply(&take(&[5, 7], 8, 100, 200));
    assert_eq!((queue.next(), queue.done_to()), (8, 5), "6 was not for us");
    assert!(visible(&queue, 199).is_empty());
    assert_eq!(visible(&queue, 200), [5, 7]);
    let ack = Op::Ack {
        offsets: vec![5],
        pop_ms: 100,
    };
    assert_eq!(queue.apply(&ack), 1);
    assert_eq!(queue.apply(&ack), 0, "the second one finds nothing");
    assert_eq!(queue.done_to(), 7);
    assert_eq!(visible(&queue, 200), [7]);
}

#[test]
fn an_ack_that_is_late_counts_unless_the_message_was_delivered_again() {
    let mut queue = PopQueue::new(0);
    queue.apply(&take(&[0, 1], 2, 100, 200));
    queue.apply(&take(&[1], 2, 300, 400));
    let late = Op::Ack {
        offsets: vec![0, 1],
        pop_ms: 100,
    };
    assert_eq!(queue.apply(&late), 1, "1 is somebody else's now");
    assert_eq!(queue.get(1).map(|unacked| unacked.times), Some(1));
}

#[test]
fn changing_gives_a_new_name_and_time_once() {
    let mut queue = PopQueue::new(0);
    queue.apply(&take(&[0], 1, 100, 200));
    let change = Op::Change {
        offset: 0,
        pop_ms: 100,
        new_pop_ms: 150,
        due_ms: 1_000,
    };
    assert_eq!(queue.apply(&change), 1);
    assert_eq!(queue.apply(&change), 0);
    assert!(visible(&queue, 999).is_empty());
    assert_eq!(visible(&queue, 1_000), [0]);
    assert_eq!(queue.get(0).map(|unacked| unacked.times), Some(0));
}

#[test]
fn in_order_one_waits_for_the_other_except_a_repeated_request() {
    let mut queue = PopQueue::new(0);
    let first = Op::Take {
        offsets: vec![0, 1],
        next: 2,
        pop_ms: 100,
        due_ms: 200,
        attempt: "a".to_owned(),
    };
    queue.apply(&first);
    assert!(queue.is_blocked(150, "b") && queue.is_blocked(150, ""));
    assert!(!queue.is_blocked(150, "a"), "its answer was lost");
    queue.apply(&first);
    assert_eq!(queue.get(0).map(|unacked| unacked.times), Some(0));
    assert!(!queue.is_blocked(200, "b"));
    queue.apply(&take(&[0, 1], 2, 201, 301));
    assert_eq!(queue.get(0).map(|unacked| unacked.times), Some(1));
}

#[test]
fn no_two_deliveries_of_a_message_have_one_name() {
    let mut queue = PopQueue::new(0);
    queue.apply(&take(&[0], 1, 100, 100));
    assert_eq!(queue.pop_ms(100, &[0]), 101);
    assert_eq!(queue.pop_ms(100, &[1]), 100);
    assert_eq!(queue.pop_ms(200, &[0]), 200);
}

/// What a test does to the queue, from small numbers.
#[derive(Clone, Debug)]
enum Act {
    Pop {
        count: u64,
        hide_ms: i64,
    },
    Again {
        count: usize,
        hide_ms: i64,
    },
    Ack {
        delivery: usize,
    },
    Change {
        delivery: usize,
        hide_ms: i64,
    },
    Wait {
        ms: i64,
    },
    /// Kill and restart: the state is made again from the ops.
    Crash,
    /// The state is written out in parts, and older ops are not needed any more.
    Checkpoint {
        parts: u64,
    },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (1..5u64, 0..50i64).prop_map(|(count, hide_ms)| Act::Pop { count, hide_ms }),
        (1..5usize, 0..50i64).prop_map(|(count, hide_ms)| Act::Again { count, hide_ms }),
        any::<prop::sample::Index>().prop_map(|at| Act::Ack {
            delivery: at.index(64)
        }),
        (any::<prop::sample::Index>(), 0..50i64).prop_map(|(at, hide_ms)| Act::Change {
            delivery: at.index(64),
            hide_ms
        }),
        (0..40i64).prop_map(|ms| Act::Wait { ms }),
        Just(Act::Crash),
        (1..4u64).prop_map(|parts| Act::Checkpoint { parts }),
    ];
    prop::collection::vec(act, 0..120)
}

/// The whole of it, told simply: for each popped message its last delivery, or none once it was acked.
#[derive(Default)]
struct Model {
    now_ms: i64,
    next: u64,
    messages: BTreeMap<u64, Option<(i64, i64)>>,
    deliveries: Vec<(u64, i64)>,
}

struct Run {
    model: Model,
    queue: PopQueue,
    log: Vec<Op>,
}

impl Run {
    fn apply(&mut self, op: Op) -> usize {
        let hold = self.queue.apply(&op);
        self.log.push(op);
        hold
    }

    fn deliver(&mut self, offsets: Vec<u64>, hide_ms: i64) {
        let pop_ms = self.queue.pop_ms(self.model.now_ms, &offsets);
        let due_ms = self.model.now_ms + hide_ms;
        for &offset in &offsets {
            self.model.messages.insert(offset, Some((pop_ms, due_ms)));
            assert!(!self.model.deliveries.contains(&(offset, pop_ms)));
            self.model.deliveries.push((offset, pop_ms));
        }
        self.apply(take(&offsets, self.model.next, pop_ms, due_ms));
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Pop { count, hide_ms } => {
                let offsets: Vec<u64> = (self.model.next..self.model.next + count).collect();
                self.model.next += count;
                self.deliver(offsets, hide_ms);
            }
            Act::Again { count, hide_ms } => {
                let offsets = self.queue.visible(self.model.now_ms).take(count).collect();
                self.deliver(offsets, hide_ms);
            }
            Act::Ack { delivery } => {
                let Some(&(offset, pop_ms)) = self.model.deliveries.get(delivery) else {
                    return;
                };
                let message = self.model.messages.get_mut(&offset).expect("delivered");
                let counts = message.is_some_and(|(last_ms, _)| last_ms == pop_ms);
                if counts {
                    *message = None;
                }
                let offsets = vec![offset];
                assert_eq!(self.apply(Op::Ack { offsets, pop_ms }), usize::from(counts));
            }
            Act::Change { delivery, hide_ms } => {
                let Some(&(offset, pop_ms)) = self.model.deliveries.get(delivery) else {
                    return;
                };
                let new_pop_ms = self.queue.pop_ms(self.model.now_ms, &[offset]);
                let due_ms = self.model.now_ms + hide_ms;
                let message = self.model.messages.get_mut(&offset).expect("delivered");
                if message.is_some_and(|(last_ms, _)| last_ms == pop_ms) {
                    *message = Some((new_pop_ms, due_ms));
                    self.model.deliveries.push((offset, new_pop_ms));
                }
                self.apply(Op::Change {
                    offset,
                    pop_ms,
                    new_pop_ms,
                    due_ms,
                });
            }
            Act::Wait { ms } => self.model.now_ms += ms,
            Act::Crash => {
                let mut again = PopQueue::default();
                for op in &self.log {
                    again.apply(op);
                }
                assert_eq!(again.unacked, self.queue.unacked);
                assert_eq!(again.next, self.queue.next);
                self.queue = again;
            }
            Act::Checkpoint { parts } => self.checkpoint(parts),
        }
    }

    fn checkpoint(&mut self, parts: u64) {
        let bounds = (0..=parts).map(|part| match part == parts {
            true => u64::MAX,
            false => self.model.next * part / parts,
        });
        let bounds: Vec<u64> = bounds.collect();
        self.log.clear();
        for pair in bounds.windows(2) {
            let range = self.queue.unacked.range(pair[0]..pair[1]);
            self.log.push(Op::Part {
                next: self.queue.next,
                from: pair[0],
                until: pair[1],
                unacked: range.map(|(&offset, unacked)| (offset, *unacked)).collect(),
                attempt: self.queue.attempt.clone(),
            });
        }
    }

    fn check(&self) {
        let (model, queue) = (&self.model, &self.queue);
        let visible: Vec<u64> = queue.visible(model.now_ms).collect();
        for (&offset, message) in &model.messages {
            match message {
                None => assert!(queue.get(offset).is_none(), "{offset} was acked"),
                Some((_, due_ms)) => {
                    let unacked = queue.get(offset).expect("a message is never gone");
                    assert_eq!(unacked.due_ms, *due_ms);
                    assert_eq!(visible.contains(&offset), *due_ms <= model.now_ms);
                }
            }
        }
        let open = model.messages.values().flatten().count();
        assert_eq!((queue.unacked_len(), queue.by_due.len()), (open, open));
        let first_open = model.messages.iter().find(|(_, message)| message.is_some());
        let done_to = first_open.map_or(model.next, |(&offset, _)| offset);
        assert_eq!((queue.done_to(), queue.next()), (done_to, model.next));
    }
}

proptest! {
    #[test]
    fn each_message_is_acked_visible_or_hidden_and_never_gone(acts in acts()) {
        let mut run = Run {
            model: Model::default(),
            queue: PopQueue::new(0),
            log: vec![Op::Start { next: 0 }],
        };
        for act in &acts {
            run.act(act);
            run.check();
        }
    }
}
