//! The mailbox against a plain queue, and under real threads.

use std::{
    collections::VecDeque,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread,
};

use proptest::prelude::*;
use reactor::mailbox::{Closed, Receiver, Sender, TrySendError, channel, oneshot};

/// Runs a future on this thread, parked while it waits.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[derive(Clone, Debug)]
enum Step {
    TrySend,
    Wait,
    GiveUp(usize),
    Receive,
    ReceiveMany(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::TrySend),
        2 => Just(Step::Wait),
        1 => (0..8usize).prop_map(Step::GiveUp),
        3 => Just(Step::Receive),
        1 => (1..6usize).prop_map(Step::ReceiveMany),
    ]
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<(), Closed<u32>>> + 'a>>;

/// What a mailbox is: those inside, at most `capacity`, and those who wait for room.
#[derive(Default)]
struct Model {
    capacity: usize,
    inside: VecDeque<u32>,
    waiting: VecDeque<u32>,
}

impl Model {
    fn receive(&mut self) -> Option<u32> {
        let item = self.inside.pop_front();
        self.let_in();
        item
    }

    fn let_in(&mut self) {
        while self.inside.len() < self.capacity {
            let Some(item) = self.waiting.pop_front() else {
                break;
            };
            self.inside.push_back(item);
        }
    }
}

fn play(capacity: usize, steps: &[Step]) {
    let (sender, mut receiver): (Sender<u32>, Receiver<u32>) = channel(capacity);
    let mut model = Model {
        capacity: sender.capacity(),
        ..Model::default()
    };
    let mut waits: Vec<(u32, Waiting<'_>)> = Vec::new();
    for (number, step) in (0..).zip(steps) {
        match step {
            Step::TrySend => {
                let expected = if model.inside.len() < model.capacity {
                    model.inside.push_back(number);
                    Ok(())
                } else {
                    Err(TrySendError::Full(number))
                };
                assert_eq!(sender.try_send(number), expected);
            }
            Step::Wait => {
                let mut wait: Waiting<'_> = Box::pin(sender.send(number));
                model.waiting.push_back(number);
                model.let_in();
                match poll_once(wait.as_mut()) {
                    Poll::Ready(sent) => assert_eq!(sent, Ok(())),
                    Poll::Pending => waits.push((number, wait)),
                }
            }
            Step::GiveUp(index) if !waits.is_empty() => {
                let (item, _wait) = waits.remove(index % waits.len());
                model.waiting.retain(|waiting| *waiting != item);
            }
            Step::GiveUp(_) => {}
            Step::Receive => assert_eq!(receiver.try_recv(), model.receive()),
            Step::ReceiveMany(max) => {
                let mut items = Vec::new();
                receiver.try_recv_many(&mut items, *max);
                // The model lets others in only after the batch.
                let count = model.inside.len().min(*max);
                let expected: Vec<u32> = model.inside.drain(..count).collect();
                model.let_in();
                assert_eq!(items, expected);
            }
        }
        assert_eq!(sender.len(), model.inside.len());
        waits.retain_mut(|(item, wait)| {
            let waits = model.waiting.contains(item);
            assert_eq!(poll_once(wait.as_mut()).is_pending(), waits);
            waits
        });
    }
    drop(waits);
    drop(sender);
    let rest: Vec<u32> = std::iter::from_fn(|| block_on(receiver.recv())).collect();
    assert_eq!(rest, model.inside.into_iter().collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn behaves_like_a_bounded_queue_with_a_fair_line(
        capacity in 0..9usize,
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        play(capacity, &steps);
    }
}

#[test]
fn many_threads_lose_nothing_and_keep_each_senders_order() {
    const SENDERS: u64 = 4;
    const ITEMS: u64 = 50_000;
    let (sender, mut receiver) = channel::<(u64, u64)>(64);
    let threads: Vec<_> = (0..SENDERS)
        .map(|id| {
            let sender = sender.clone();
            thread::spawn(move || {
                for item in 0..ITEMS {
                    block_on(sender.send((id, item))).expect("the receiver stays");
                }
            })
        })
        .collect();
    drop(sender);
    let mut next = [0; SENDERS as usize];
    let mut items = Vec::new();
    while block_on(receiver.recv_many(&mut items, 48)) > 0 {
        for (id, item) in items.drain(..) {
            assert_eq!(item, next[id as usize], "sender {id}");
            next[id as usize] += 1;
        }
    }
    assert_eq!(next, [ITEMS; SENDERS as usize]);
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}

#[test]
fn an_item_left_behind_by_the_receiver_is_dropped_at_once() {
    let (sender, receiver) = channel(4);
    let (reply, mut answer) = oneshot::<u32>();
    sender.try_send(reply).unwrap();
    assert_eq!(poll_once(Pin::new(&mut answer)), Poll::Pending);
    drop(receiver);
    assert_eq!(poll_once(Pin::new(&mut answer)), Poll::Ready(None));
    assert!(sender.is_closed());
}

#[test]
fn an_answer_crosses_threads_and_a_dropped_reply_ends_the_wait() {
    let (reply, answer) = oneshot();
    thread::spawn(move || reply.send(7));
    assert_eq!(block_on(answer), Some(7));
    let (reply, answer) = oneshot::<u32>();
    thread::spawn(move || drop(reply));
    assert_eq!(block_on(answer), None);
}

#[test]
fn the_receiver_learns_that_all_senders_are_gone() {
    let (sender, mut receiver) = channel::<u32>(2);
    let other = sender.clone();
    let thread = thread::spawn(move || {
        other.try_send(1).unwrap();
        drop(other);
        drop(sender);
    });
    assert_eq!(block_on(receiver.recv()), Some(1));
    assert_eq!(block_on(receiver.recv()), None);
    thread.join().unwrap();
}

/// Prints what an item costs: `cargo test -p reactor --release --test mailbox_model -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
fn cost_of_an_item_without_contention() {
    const BATCH: usize = 64;
    const ROUNDS: usize = 100_000;
    let (sender, mut receiver) = channel::<usize>(BATCH);
    let mut items = Vec::with_capacity(BATCH);
    let start = std::time::Instant::now();
    for round in 0..ROUNDS {
        for _ in 0..BATCH {
            sender.try_send(round).unwrap();
        }
        assert_eq!(receiver.try_recv_many(&mut items, BATCH), Some(BATCH));
        items.clear();
    }
    let per_item = start.elapsed().as_nanos() as f64 / (ROUNDS * BATCH) as f64;
    println!("try_send + its share of recv_many: {per_item:.1} ns");
}
