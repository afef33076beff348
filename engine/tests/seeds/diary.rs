//! What was tried, what was promised, and whether the store has kept it.

use super::life::Ends;
use super::plan::{End, Life, Plan};
use std::collections::{BTreeMap, VecDeque};

/// All of one topic.
pub const QUEUES: usize = 3;
pub const TOPIC: &str = "t";

/// A message that was handed to the store.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    pub number: u64,
    pub body_bytes: u32,
    /// Where its record ends; unknown while it is being appended.
    pub log_end: Option<u64>,
}

pub struct Diary {
    sync_flush: bool,
    /// By queue, in the order of their offsets.
    pub tried: [Vec<Tried>; QUEUES],
    /// How many of them were acknowledged.
    acknowledged: [usize; QUEUES],
    /// Appended and not acknowledged: where the log has to be released to, and the queue.
    on_the_way: VecDeque<(u64, usize)>,
    /// Everything below was reported to survive a power cut.
    flushed: u64,
    /// The log was seen to begin there.
    first: u64,
    /// The power was cut since the store was last looked at.
    power_cut: bool,
    pub next_number: u64,
    pub ends: Ends,
    pub is_to_close: bool,
    pub counts: BTreeMap<&'static str, u64>,
}

impl Diary {
    pub fn new(plan: &Plan) -> Diary {
        Diary {
            sync_flush: plan.sync_flush,
            tried: Default::default(),
            acknowledged: [0; QUEUES],
            on_the_way: VecDeque::new(),
            flushed: 0,
            first: 0,
            power_cut: false,
            next_number: 0,
            ends: Ends::Opening,
            is_to_close: false,
            counts: BTreeMap::new(),
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn begin(&mut self, _life: &Life) {
        self.ends = Ends::Opening;
        self.is_to_close = false;
        self.on_the_way.clear();
    }

    pub fn end(&mut self, end: End) {
        self.power_cut |= end == End::PowerCut;
        self.count(match end {
            End::Kill => "lives killed",
            End::PowerCut => "lives cut",
            End::Close => "lives closed",
        });
    }

    pub fn appended(&mut self, queue: usize, log_end: u64) {
        let last = self.tried[queue].last_mut();
        last.expect("it was tried").log_end = Some(log_end);
        self.on_the_way.push_back((log_end, queue));
        self.count("messages appended");
    }

    pub fn refused(&mut self, queue: usize) {
        self.tried[queue].pop().expect("it was tried");
        self.count("messages refused");
    }

    /// Takes down what the store promises now.
    pub fn look(&mut self, released: u64, flushed: u64, first: u64) {
        if self.sync_flush {
            assert!(released <= flushed, "shown before it was durable");
        }
        self.flushed = self.flushed.max(flushed);
        assert!(first >= self.first, "what was reclaimed is back");
        if first > self.first {
            self.count("times the log was reclaimed");
        }
        self.first = first;
        while let Some((_, queue)) = self.on_the_way.pop_front_if(|next| next.0 <= released) {
            self.acknowledged[queue] += 1;
            assert!(self.acknowledged[queue] <= self.tried[queue].len());
        }
    }

    /// After opening: the store ends at `end`, and the queues lie within their bounds. From here on that is the truth.
    pub fn reconcile(&mut self, end: u64, first: u64, queues: [(u64, u64); QUEUES]) {
        assert!(
            end >= self.flushed,
            "{end} is the end, {} was flushed",
            self.flushed
        );
        assert!(first >= self.first, "what was reclaimed is back");
        let may_lose = self.power_cut && !self.sync_flush;
        for (queue, (start, end)) in queues.into_iter().enumerate() {
            let (start, end) = (start as usize, end as usize);
            let tried = &self.tried[queue];
            assert!(
                end <= tried.len(),
                "queue {queue} ends at {end}, more than was sent"
            );
            let promised = if may_lose {
                let is_flushed =
                    |tried: &&Tried| tried.log_end.is_some_and(|end| end <= self.flushed);
                tried.iter().take_while(is_flushed).count()
            } else {
                self.acknowledged[queue]
            };
            assert!(
                end >= promised,
                "queue {queue} ends at {end}, {promised} were promised"
            );
            assert!(
                start <= end,
                "queue {queue} starts at {start}, behind its end {end}"
            );
            self.assert_reclaimed(queue, start, first);
            let tried = &mut self.tried[queue];
            tried.truncate(end);
            self.acknowledged[queue] = end;
        }
        self.first = first;
        self.power_cut = false;
        self.count("times opened");
    }

    /// Nothing of a queue below `start` is in a log that begins at `first`.
    pub fn assert_reclaimed(&self, queue: usize, start: usize, first: u64) {
        let below = self.tried[queue][..start].iter();
        let left = below.filter(|tried| tried.log_end.is_some_and(|end| end > first));
        assert_eq!(
            left.count(),
            0,
            "queue {queue} starts behind messages that are there"
        );
    }
}
