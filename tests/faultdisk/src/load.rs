//! Load on a broker: senders that number their messages, remember every acknowledgement and mark it in the trace.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::client::{Client, Sent};
use crate::control::Control;
use crate::payload::{self, Number};
use crate::promises::{Promises, Queue, mark};

pub const STORED: i32 = 0;

#[derive(Clone)]
pub struct Plan {
    pub address: SocketAddr,
    pub topic: String,
    pub queues: u32,
    pub senders: u32,
    /// Requests a sender has under way.
    pub depth: usize,
    pub body_bytes_max: usize,
    /// The first sender's number; no two loads of a run share one.
    pub first_sender: u32,
    /// A breath after each round of requests.
    pub pause: Duration,
    /// Where acknowledgements are marked.
    pub control: Option<PathBuf>,
}

/// What came of it.
#[derive(Default)]
pub struct Outcome {
    /// Acknowledged as promised.
    pub stored: Promises,
    /// Any other answer, by code, with its last remark.
    pub refused: BTreeMap<i32, (u64, String)>,
    /// An offset that was given to two messages.
    pub given_twice: u64,
    /// Why senders lost their connection.
    pub broken: Vec<String>,
}

pub struct Load {
    stop: Arc<AtomicBool>,
    stored: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    senders: Vec<JoinHandle<Outcome>>,
}

impl Load {
    pub fn start(plan: &Plan) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let stored = Arc::new(AtomicU64::new(0));
        let refused = Arc::new(AtomicU64::new(0));
        let senders = (0..plan.senders).map(|number| {
            let sender = Sender {
                plan: plan.clone(),
                number: plan.first_sender + number,
                stop: stop.clone(),
                stored: stored.clone(),
                refused: refused.clone(),
            };
            thread::spawn(move || sender.run())
        });
        Load {
            senders: senders.collect(),
            stop,
            stored,
            refused,
        }
    }

    /// Acknowledged so far.
    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub fn is_over(&self) -> bool {
        self.senders.iter().all(JoinHandle::is_finished)
    }

    /// Lets every request under way be answered.
    pub fn finish(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        for sender in self.senders {
            let one = sender.join().expect("a sender does not panic");
            all.stored.extend(&one.stored);
            all.given_twice += one.given_twice;
            all.broken.extend(one.broken);
            for (code, (count, remark)) in one.refused {
                let entry = all.refused.entry(code).or_default();
                entry.0 += count;
                entry.1 = remark;
            }
        }
        all
    }
}

struct Sender {
    plan: Plan,
    number: u32,
    stop: Arc<AtomicBool>,
    stored: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Sender {
    fn run(self) -> Outcome {
        let mut outcome = Outcome::default();
        let mut client = match Client::connect(self.plan.address) {
            Ok(client) => client,
            Err(error) => {
                outcome.broken.push(error.to_string());
                return outcome;
            }
        };
        let path = self.plan.control.as_ref();
        let mut control = path.and_then(|path| Control::connect(path).ok());
        let mut sequence = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let numbers: Vec<Number> = (0..self.plan.depth as u64)
                .map(|more| Number::new(self.number, sequence + more))
                .collect();
            sequence += self.plan.depth as u64;
            let round = self.round(&mut client, &mut control, &numbers, &mut outcome);
            if let Err(error) = round {
                outcome.broken.push(error.to_string());
                break;
            }
            if !self.plan.pause.is_zero() {
                thread::sleep(self.plan.pause);
            }
        }
        outcome
    }

    fn round(
        &self,
        client: &mut Client,
        control: &mut Option<Control>,
        numbers: &[Number],
        outcome: &mut Outcome,
    ) -> std::io::Result<()> {
        let plan = &self.plan;
        let queue_of = |number: Number| (number.0 % u64::from(plan.queues)) as u32;
        let messages: Vec<(u32, Vec<u8>)> = numbers
            .iter()
            .map(|number| {
                let body = payload::body(*number, plan.body_bytes_max);
                (queue_of(*number), body)
            })
            .collect();
        client.send(&plan.topic, &messages, |at, sent| {
            let number = numbers[at];
            self.note(number, queue_of(number), sent, control, outcome);
        })
    }

    fn note(
        &self,
        number: Number,
        queue: u32,
        sent: Sent,
        control: &mut Option<Control>,
        outcome: &mut Outcome,
    ) {
        let (STORED, Some(offset)) = (sent.code, sent.queue_offset) else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let entry = outcome.refused.entry(sent.code).or_default();
            entry.0 += 1;
            entry.1 = sent.remark;
            return;
        };
        if let Some(control) = control {
            // Without its mark a message is one promise fewer to check.
            let _ = control.mark(&mark(&self.plan.topic, queue, offset, number));
        }
        self.stored.fetch_add(1, Ordering::Relaxed);
        let queue = Queue {
            topic: self.plan.topic.clone(),
            number: queue,
        };
        let before = outcome.stored.add(queue, offset, number);
        outcome.given_twice += u64::from(before.is_some());
    }
}
