//! Every interleaving of small mailbox scenes: `RUSTFLAGS="--cfg loom" cargo test -p reactor --test mailbox_loom --release`.
#![cfg(loom)]
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use loom::{future::block_on, thread};
use reactor::mailbox::{TrySendError, channel, oneshot};

/// Preemptions explored with one thread beside the receiver.
const PREEMPTIONS_OF_TWO: usize = 3;
/// With two beside it: one more takes minutes.
const PREEMPTIONS_OF_THREE: usize = 2;

fn explore(preemptions_max: usize, scene: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions_max);
    model.check(scene);
}

#[test]
fn two_senders_deliver_everything_and_the_sleeping_receiver_wakes() {
    explore(PREEMPTIONS_OF_THREE, || {
        let (sender, mut receiver) = channel::<u32>(2);
        let other = sender.clone();
        let first = thread::spawn(move || sender.try_send(1).expect("there is room"));
        let second = thread::spawn(move || other.try_send(2).expect("there is room"));
        let mut sum = 0;
        while let Some(item) = block_on(receiver.recv()) {
            sum += item;
        }
        assert_eq!(sum, 3);
        first.join().unwrap();
        second.join().unwrap();
    });
}

#[test]
fn a_sender_waiting_for_room_is_woken_and_order_is_kept() {
    explore(PREEMPTIONS_OF_TWO, || {
        let (sender, mut receiver) = channel::<u32>(2);
        sender.try_send(0).unwrap();
        sender.try_send(1).unwrap();
        let waiting = thread::spawn(move || block_on(sender.send(2)).unwrap());
        for expected in 0..3 {
            assert_eq!(block_on(receiver.recv()), Some(expected));
        }
        waiting.join().unwrap();
        assert_eq!(block_on(receiver.recv()), None);
    });
}

#[test]
fn two_senders_wait_for_room_and_a_batch_lets_both_in() {
    explore(PREEMPTIONS_OF_THREE, || {
        let (sender, mut receiver) = channel::<u32>(2);
        sender.try_send(0).unwrap();
        sender.try_send(1).unwrap();
        let other = sender.clone();
        let first = thread::spawn(move || block_on(sender.send(2)).unwrap());
        let second = thread::spawn(move || block_on(other.send(3)).unwrap());
        let mut items = Vec::new();
        assert_eq!(receiver.try_recv_many(&mut items, 2), Some(2));
        first.join().unwrap();
        second.join().unwrap();
        receiver.try_recv_many(&mut items, 2);
        items[2..].sort_unstable();
        assert_eq!(items, [0, 1, 2, 3]);
    });
}

#[test]
fn a_vanishing_receiver_ends_every_wait_and_drops_what_it_left() {
    explore(PREEMPTIONS_OF_TWO, || {
        let (sender, receiver) = channel(2);
        let (reply, answer) = oneshot::<u32>();
        sender.try_send(None).unwrap();
        let asking = thread::spawn(move || {
            // Taken or not, nobody answers; and the wait ends while this sender still lives.
            match sender.try_send(Some(reply)) {
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(_)) => panic!("there is room for two"),
            }
            assert_eq!(block_on(answer), None);
            assert!(block_on(sender.send(None)).is_err());
        });
        drop(receiver);
        asking.join().unwrap();
    });
}

#[test]
fn a_sender_waiting_for_room_gets_its_item_back_when_the_receiver_goes() {
    explore(PREEMPTIONS_OF_TWO, || {
        let (sender, receiver) = channel::<u32>(2);
        sender.try_send(0).unwrap();
        sender.try_send(1).unwrap();
        let waiting = thread::spawn(move || {
            // Ok when the closing drain made room first: then the item was dropped like those before it.
            let _ = block_on(sender.send(2));
        });
        drop(receiver);
        waiting.join().unwrap();
    });
}

#[test]
fn an_answer_arrives_or_its_absence_is_noticed() {
    explore(PREEMPTIONS_OF_TWO, || {
        let (reply, answer) = oneshot::<u32>();
        let (silent, unanswered) = oneshot::<u32>();
        let other = thread::spawn(move || {
            reply.send(7);
            drop(silent);
        });
        assert_eq!(block_on(answer), Some(7));
        assert_eq!(block_on(unanswered), None);
        other.join().unwrap();
    });
}
