//! What all parts of a world share: the clock, the queue of events to come, chance, the trace, and the network.
//!
//! Everything happens on one thread; the lock is there because files and detached sockets promise to be `Send`. Wakers
//! are collected under the lock and woken after it, since waking may run anything.

use std::{
    cmp::Ordering as Order,
    collections::BinaryHeap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use super::{
    chance::{Chance, Trace},
    faults::Faults,
    net::{Net, Packet},
};
use crate::time::Instant;

/// Midnight of 2026-01-01 UTC, when every world begins.
pub(super) const EPOCH_WALL_MS: i64 = 1_767_225_600_000;
const NANOS_PER_MS: u64 = 1_000_000;

pub(super) struct Shared {
    now_ns: AtomicU64,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) chance: Chance,
    pub(super) trace: Trace,
    pub(super) faults: Faults,
    pub(super) net: Net,
    pub(super) now: Instant,
    queue: BinaryHeap<Event>,
    next_sequence: u64,
    /// Turns of cores since the clock last moved.
    turns: u32,
    pub(super) slow_operations: u64,
    woken: Vec<Waker>,
}

/// Ordered by time, then by when it was scheduled.
struct Event {
    at: Instant,
    sequence: u64,
    packet: Packet,
}

impl Shared {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            now_ns: AtomicU64::new(0),
            state: Mutex::new(State {
                chance: Chance::new(seed),
                trace: Trace::default(),
                faults,
                net: Net::default(),
                now: Instant::from_nanos(0),
                queue: BinaryHeap::new(),
                next_sequence: 0,
                turns: 0,
                slow_operations: 0,
                woken: Vec::new(),
            }),
        }
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_nanos(self.now_ns.load(Ordering::Relaxed))
    }

    pub(super) fn wall_ms(&self) -> i64 {
        EPOCH_WALL_MS + (self.now().as_nanos() / NANOS_PER_MS).cast_signed()
    }

    /// Access to everything; who was woken meanwhile is told when it ends.
    pub(super) fn with<R>(&self, access: impl FnOnce(&mut State) -> R) -> R {
        let (result, woken) = {
            // A failed assertion of one task must not hide behind a poisoned lock in all others.
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let result = access(&mut state);
            (result, std::mem::take(&mut state.woken))
        };
        woken.into_iter().for_each(Waker::wake);
        result
    }

    pub(super) fn disk_delay(&self) -> Duration {
        self.with(|state| {
            let faults = state.faults;
            if state.chance.happens(faults.slow_ppm) {
                state.slow_operations += 1;
                return state.chance.between(faults.slow_delay);
            }
            state.chance.between(faults.disk_delay)
        })
    }

    /// Moves the clock forward and lets everything happen that is due by then.
    pub(super) fn advance_to(&self, now: Instant) {
        self.now_ns.store(now.as_nanos(), Ordering::Relaxed);
        self.with(|state| {
            assert!(now >= state.now, "time does not run backwards");
            state.now = now;
            state.turns = 0;
            while let Some(packet) = state.pop_due() {
                state.arrive(packet);
            }
        });
    }

    pub(super) fn next_event(&self) -> Option<Instant> {
        self.with(|state| state.queue.peek().map(|event| event.at))
    }
}

impl State {
    pub(super) fn schedule(&mut self, at: Instant, packet: Packet) {
        debug_assert!(at >= self.now, "nothing is scheduled for the past");
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.queue.push(Event {
            at,
            sequence,
            packet,
        });
    }

    pub(super) fn wake(&mut self, waker: &mut Option<Waker>) {
        self.woken.extend(waker.take());
    }

    /// Finds loops that wait for the clock without sleeping, and so stop it.
    pub(super) fn count_turn(&mut self, turns_max: u32) {
        self.turns += 1;
        assert!(
            self.turns <= turns_max,
            "{turns_max} turns at one instant: some task never sleeps"
        );
    }

    fn pop_due(&mut self) -> Option<Packet> {
        if self.queue.peek()?.at > self.now {
            return None;
        }
        let event = self.queue.pop()?;
        self.trace.fold_all([event.at.as_nanos(), event.sequence]);
        Some(event.packet)
    }
}

impl Ord for Event {
    /// The heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> Order {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Event {}
