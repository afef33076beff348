use std::sync::Arc;

use super::*;

const DONE: Unacked = Unacked {
    pop_ms: 100,
    due_ms: 900,
    times: 2,
    ahead: 0,
};

fn place(topic: &str, queue_id: u32) -> Place {
    Place {
        group: Arc::from("g"),
        topic: Arc::from(topic),
        queue_id,
    }
}

#[test]
fn a_copy_is_never_new_to_anybody_once_it_is_acknowledged() {
    let mut state = PopQueue::new(0);
    state.apply(&popped_to(&state, 0, Some((0, DONE)), String::new()));
    state.apply(&Op::Ack {
        offsets: vec![0],
        pop_ms: DONE.pop_ms,
    });
    assert_eq!((state.next(), state.unacked_len()), (1, 0));
    // One that was acknowledged before it was there.
    state.apply(&popped_to(&state, 1, None, String::new()));
    assert_eq!((state.next(), state.unacked_len()), (2, 0));
}

#[test]
fn what_lies_before_a_copy_and_was_not_popped_is_visible() {
    let mut state = PopQueue::new(3);
    state.apply(&Op::Take {
        offsets: vec![1, 4],
        next: 3,
        pop_ms: 10,
        due_ms: 500,
        attempt: String::new(),
    });
    state.apply(&popped_to(&state, 6, Some((6, DONE)), String::new()));
    assert_eq!(state.next(), 7);
    assert_eq!(state.visible(100).collect::<Vec<u64>>(), [3, 5]);
    assert_eq!(state.visible(600).collect::<Vec<u64>>(), [3, 5, 1, 4]);
    assert_eq!(state.get(6), Some(&DONE), "as often as before");
}

#[test]
fn a_handle_leads_to_where_its_message_is_however_often_that_moved() {
    let moved = Moved::default();
    let (first, second) = (place("t", 3), place("%RETRY%g_t", 4));
    moved.insert((first.clone(), 5), (second.clone(), 0));
    moved.insert((second.clone(), 0), (second.clone(), 9));
    assert_eq!(moved.find(&first, 5), Some((second.clone(), 9)));
    assert_eq!(moved.find(&first, 6), None);
    moved.forget_where(|place| &*place.topic == "t");
    assert_eq!(moved.find(&first, 5), None);
    assert_eq!(moved.find(&second, 0), Some((second, 9)));
}

#[test]
fn each_queue_has_its_own_in_the_retry_topic_and_rocketmqs_is_none_of_them() {
    assert_eq!(retry_queue("t", 0), 1);
    assert_eq!(retry_queue("t", 7), 8);
    assert_eq!(retry_queue("%RETRY%g_t", 0), 1);
    assert_eq!(retry_queue("%RETRY%g+t", 8), 8);
}
