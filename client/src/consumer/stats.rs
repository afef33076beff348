//! How fast a consumer pulls and consumes, topic by topic, over the last minute: for operators who ask it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::Mutex;

/// Buckets of the last minute, and how long each is.
const BUCKETS: usize = 6;
const BUCKET: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Stats {
    topics: Mutex<BTreeMap<String, Topic>>,
}

#[derive(Default)]
struct Topic {
    buckets: VecDeque<Bucket>,
    failed_in_all: u64,
}

struct Bucket {
    began: Instant,
    counts: Counts,
}

/// What happened in a while.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    pulls: u64,
    pull_ms: u64,
    pulled: u64,
    consumptions: u64,
    consume_ms: u64,
    done: u64,
    failed: u64,
}

/// Rates per second and mean times in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub pull_ms: f64,
    pub pulled: f64,
    pub consume_ms: f64,
    pub done: f64,
    pub failed: f64,
    pub failed_in_all: u64,
}

impl Stats {
    pub fn pulled(&self, topic: &str, messages: usize, took: Duration) {
        self.count(topic, |counts| {
            counts.pulls += 1;
            counts.pull_ms += took.as_millis() as u64;
            counts.pulled += messages as u64;
        });
    }

    pub fn consumed(&self, topic: &str, messages: usize, took: Duration, well: bool) {
        self.count(topic, |counts| {
            counts.consumptions += 1;
            counts.consume_ms += took.as_millis() as u64;
            match well {
                true => counts.done += messages as u64,
                false => counts.failed += messages as u64,
            }
        });
    }

    fn count(&self, topic: &str, change: impl FnOnce(&mut Counts)) {
        let now = Instant::now();
        let mut topics = self.topics.lock();
        if !topics.contains_key(topic) {
            topics.insert(topic.to_owned(), Topic::default());
        }
        let entry = topics.get_mut(topic).expect("made a moment ago");
        entry.make_room(now);
        let bucket = entry.buckets.back_mut().expect("there is room");
        let before = bucket.counts.failed;
        change(&mut bucket.counts);
        entry.failed_in_all += bucket.counts.failed - before;
    }

    pub fn rates(&self) -> BTreeMap<String, Rates> {
        let now = Instant::now();
        let mut topics = self.topics.lock();
        let each = |(name, topic): (&String, &mut Topic)| {
            topic.make_room(now);
            (name.clone(), topic.rates(now))
        };
        topics.iter_mut().map(each).collect()
    }
}

impl Topic {
    /// Forgets what is older than a minute; the last bucket is the running one.
    fn make_room(&mut self, now: Instant) {
        let old = |bucket: &Bucket| now.duration_since(bucket.began) >= BUCKET * BUCKETS as u32;
        while self.buckets.front().is_some_and(old) {
            self.buckets.pop_front();
        }
        let full = |bucket: &Bucket| now.duration_since(bucket.began) >= BUCKET;
        if self.buckets.back().is_none_or(full) {
            self.buckets.push_back(Bucket {
                began: now,
                counts: Counts::default(),
            });
        }
    }

    fn rates(&self, now: Instant) -> Rates {
        let mut sum = Counts::default();
        for bucket in &self.buckets {
            let counts = bucket.counts;
            sum.pulls += counts.pulls;
            sum.pull_ms += counts.pull_ms;
            sum.pulled += counts.pulled;
            sum.consumptions += counts.consumptions;
            sum.consume_ms += counts.consume_ms;
            sum.done += counts.done;
            sum.failed += counts.failed;
        }
        let began = self.buckets.front().map_or(now, |bucket| bucket.began);
        let seconds = now.duration_since(began).as_secs_f64().max(1.0);
        let mean = |total: u64, count: u64| total as f64 / count.max(1) as f64;
        Rates {
            pull_ms: mean(sum.pull_ms, sum.pulls),
            pulled: sum.pulled as f64 / seconds,
            consume_ms: mean(sum.consume_ms, sum.consumptions),
            done: sum.done as f64 / seconds,
            failed: sum.failed as f64 / seconds,
            failed_in_all: self.failed_in_all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rates_are_those_of_the_last_minute() {
        let stats = Stats::default();
        for _ in 0..100 {
            stats.pulled("t", 32, Duration::from_millis(4));
            stats.consumed("t", 1, Duration::from_millis(2), true);
        }
        stats.consumed("t", 1, Duration::from_millis(2), false);
        tokio::time::advance(Duration::from_secs(10)).await;
        let rates = stats.rates()["t"];
        assert_eq!(
            (rates.pulled, rates.done, rates.pull_ms),
            (320.0, 10.0, 4.0)
        );
        assert_eq!((rates.consume_ms, rates.failed_in_all), (2.0, 1));
        tokio::time::advance(Duration::from_secs(70)).await;
        let rates = stats.rates()["t"];
        assert_eq!(
            (rates.pulled, rates.done, rates.failed_in_all),
            (0.0, 0.0, 1)
        );
    }
}
