//! What goes on by topic, by group and in the whole broker, over the last minute, hour and day: what tools ask for by
//! RocketMQ's names.
//!
//! Owned by the coordinator, fed once a second by every shard's tally and at once by what runs beside the coordinator.
//! What was idle for a day is forgotten, and there is a most of everything, so memory is bounded.

use std::cell::RefCell;
use std::hash::Hash;
use std::sync::Arc;

use engine::Store;
use hashbrown::{Equivalent, HashMap};
use protocol::body::figures::{BrokerStats, StatsItem};
use protocol::names;

use super::latencies::{LastMinute, Latencies, Shown};
use super::pulled::Pulled;
use super::series::{Series, Sums, Window, tick_of};
use super::tally::{Counted, Got, Put, Reading};

/// Topics, and pairs of topic and group, that are counted one by one; the broker's own sums have all.
const KEYS_MAX: usize = 100_000;

/// Lives beside the coordinator.
#[derive(Debug)]
pub struct Figures(RefCell<Inner>);

#[derive(Debug)]
struct Inner {
    cluster: String,
    topics: Table<Arc<str>>,
    gets: Table<Reading>,
    disk_gets: Table<Reading>,
    acks: Table<Reading>,
    checkpoints: Table<Reading>,
    sent_back: Table<Reading>,
    given_up: Table<Reading>,
    pulled: Pulled,
    broker: Broker,
    latencies: LastMinute,
    slowest_get_us: u64,
}

/// The sums of the whole broker.
#[derive(Debug)]
struct Broker {
    puts: Series,
    gets: Series,
    user_puts: Series,
    user_gets: Series,
    disk_gets: Series,
    acks: Series,
    checkpoints: Series,
}

#[derive(Debug)]
struct Table<K> {
    series: HashMap<K, Series>,
    /// When there was no room left: looked for again not before the next hour.
    full_at_s: Option<u64>,
}

/// How a name's figure is taken from the sums.
#[derive(Clone, Copy)]
enum Of {
    Count,
    Bytes,
    Millis,
}

impl Figures {
    pub fn new(cluster: &str, now_s: u64) -> Self {
        let series = || Series::new(now_s);
        Self(RefCell::new(Inner {
            cluster: cluster.to_owned(),
            topics: Table::default(),
            gets: Table::default(),
            disk_gets: Table::default(),
            acks: Table::default(),
            checkpoints: Table::default(),
            sent_back: Table::default(),
            given_up: Table::default(),
            pulled: Pulled::default(),
            broker: Broker {
                puts: series(),
                gets: series(),
                user_puts: series(),
                user_gets: series(),
                disk_gets: series(),
                acks: series(),
                checkpoints: series(),
            },
            latencies: LastMinute::default(),
            slowest_get_us: 0,
        }))
    }

    /// A shard's piece of news.
    pub fn take(&self, counted: Counted, store: &Store, now_s: u64) {
        let inner = &mut *self.0.borrow_mut();
        for put in &counted.puts {
            if let Some(queue) = store.queue_by_no(put.queue) {
                inner.put(queue.topic(), put, now_s);
            }
        }
        for (reading, got) in counted.gets {
            inner.got(reading, &got, now_s);
        }
        for (reading, queues) in counted.pulled {
            inner.pulled.take(reading, queues);
        }
        if let Some(latencies) = counted.latencies {
            inner.add_latencies(latencies, now_s);
        }
        inner.slowest_get_us = inner.slowest_get_us.max(counted.slowest_get_us);
    }

    /// A consumer gave a message back (`SNDBCK_PUT_NUMS`); `topic` is where it came from.
    pub fn sent_back(&self, group: &str, topic: &str, now_s: u64) {
        let inner = &mut *self.0.borrow_mut();
        inner.sent_back.add(reading(group, topic), &once(), now_s);
    }

    /// It was given back too often and went to the dead letters (`DLQ_PUT_NUMS`).
    pub fn given_up(&self, group: &str, topic: &str, now_s: u64) {
        let inner = &mut *self.0.borrow_mut();
        inner.given_up.add(reading(group, topic), &once(), now_s);
    }

    pub fn topic_gone(&self, topic: &str) {
        let inner = &mut *self.0.borrow_mut();
        inner.topics.series.remove(topic);
        inner.retain(|reading| *reading.topic != *topic);
    }

    pub fn group_gone(&self, group: &str) {
        self.0
            .borrow_mut()
            .retain(|reading| *reading.group != *group);
    }

    /// Where a group's last pull of a queue that found something left it.
    pub fn pulled(&self, group: &str, topic: &str, queue_id: u32) -> Option<u64> {
        self.0.borrow().pulled.next(&(topic, group), queue_id)
    }

    /// Messages per second put into a topic in the last minute.
    pub fn put_rate(&self, topic: &str, now_s: u64) -> f64 {
        let inner = self.0.borrow();
        rate(inner.topics.series.get(topic), now_s)
    }

    /// Messages per second that a group got of a topic in the last minute.
    pub fn get_rate(&self, group: &str, topic: &str, now_s: u64) -> f64 {
        let inner = self.0.borrow();
        rate(inner.gets.series.get(&(topic, group)), now_s)
    }

    pub fn latencies(&self, now_s: u64) -> Shown {
        self.0.borrow().latencies.shown(tick_of(now_s))
    }

    /// The pull that took longest since the start.
    pub fn slowest_get_ms(&self) -> u64 {
        self.0.borrow().slowest_get_us / 1000
    }

    /// What RocketMQ calls `name`, of `key`; none if nothing was counted.
    pub fn named(&self, name: &str, key: &str, now_s: u64) -> Option<BrokerStats> {
        let inner = self.0.borrow();
        let (series, of) = inner.find(name, key)?;
        let item = |window| item(series, of, window, now_s);
        Some(BrokerStats {
            stats_day: item(Window::Day),
            stats_hour: item(Window::Hour),
            stats_minute: item(Window::Minute),
        })
    }
}

impl Inner {
    fn put(&mut self, topic: &str, put: &Put, now_s: u64) {
        let sums = Sums {
            count: put.messages,
            bytes: put.bytes,
            times: put.messages,
            took_us: put.waited_us,
            measured: put.answered,
        };
        self.topics.add_borrowed(topic, &sums, now_s);
        self.broker.puts.add(now_s, &sums);
        if !names::is_system_topic(topic) {
            self.broker.user_puts.add(now_s, &sums);
        }
    }

    fn got(&mut self, reading: Reading, got: &Got, now_s: u64) {
        let count = |count| Sums {
            count,
            times: count,
            ..Sums::default()
        };
        if got.acks > 0 {
            let acks = count(got.acks);
            self.broker.acks.add(now_s, &acks);
            self.acks.add(reading.clone(), &acks, now_s);
        }
        if got.checkpoints > 0 {
            let checkpoints = count(got.checkpoints);
            self.broker.checkpoints.add(now_s, &checkpoints);
            self.checkpoints.add(reading.clone(), &checkpoints, now_s);
        }
        if got.disk_messages > 0 {
            let disk = Sums {
                bytes: got.disk_bytes,
                ..count(got.disk_messages)
            };
            self.broker.disk_gets.add(now_s, &disk);
            self.disk_gets.add(reading.clone(), &disk, now_s);
        }
        if got.messages == 0 {
            return;
        }
        let sums = Sums {
            count: got.messages,
            bytes: got.bytes,
            times: got.pulls,
            took_us: got.took_us,
            measured: got.pulls,
        };
        self.broker.gets.add(now_s, &sums);
        if !names::is_system_topic(&reading.topic) {
            self.broker.user_gets.add(now_s, &sums);
        }
        self.gets.add(reading, &sums, now_s);
    }

    fn add_latencies(&mut self, latencies: Box<Latencies>, now_s: u64) {
        self.latencies.add(tick_of(now_s), latencies);
    }

    fn retain(&mut self, keep: impl Fn(&Reading) -> bool) {
        for table in [
            &mut self.gets,
            &mut self.disk_gets,
            &mut self.acks,
            &mut self.checkpoints,
            &mut self.sent_back,
            &mut self.given_up,
        ] {
            table.series.retain(|reading, _| keep(reading));
        }
        self.pulled.retain(&keep);
    }

    /// Keys are `topic`, `topic@group`, `queue@topic`, `queue@topic@group` or the cluster's name, as RocketMQ has them. What
    /// it keeps for each queue (latencies) is that of the topic here.
    fn find(&self, name: &str, key: &str) -> Option<(&Series, Of)> {
        let topic = |topic: &str| self.topics.series.get(topic);
        let broker = |series| (key == self.cluster).then_some(series);
        Some(match name {
            "TOPIC_PUT_NUMS" => (topic(key)?, Of::Count),
            "TOPIC_PUT_SIZE" => (topic(key)?, Of::Bytes),
            "TOPIC_PUT_LATENCY" => (topic(key.split_once('@')?.1)?, Of::Millis),
            "GROUP_GET_NUMS" => (self.gets.get_by_key(key)?, Of::Count),
            "GROUP_GET_SIZE" => (self.gets.get_by_key(key)?, Of::Bytes),
            "GROUP_GET_LATENCY" => (self.gets.get_by_key(without_queue(key))?, Of::Millis),
            "GROUP_GET_FROM_DISK_NUMS" => (self.disk_gets.get_by_key(key)?, Of::Count),
            "GROUP_GET_FROM_DISK_SIZE" => (self.disk_gets.get_by_key(key)?, Of::Bytes),
            "GROUP_ACK_NUMS" => (self.acks.get_by_key(key)?, Of::Count),
            "GROUP_CK_NUMS" => (self.checkpoints.get_by_key(key)?, Of::Count),
            "SNDBCK_PUT_NUMS" => (self.sent_back.get_by_key(key)?, Of::Count),
            "DLQ_PUT_NUMS" => (self.given_up.get_by_key(key)?, Of::Count),
            "BROKER_PUT_NUMS" => (broker(&self.broker.puts)?, Of::Count),
            "BROKER_GET_NUMS" => (broker(&self.broker.gets)?, Of::Count),
            "BROKER_PUT_NUMS_WITHOUT_SYSTEM_TOPIC" => (broker(&self.broker.user_puts)?, Of::Count),
            "BROKER_GET_NUMS_WITHOUT_SYSTEM_TOPIC" => (broker(&self.broker.user_gets)?, Of::Count),
            "BROKER_GET_FROM_DISK_NUMS" => (broker(&self.broker.disk_gets)?, Of::Count),
            "BROKER_GET_FROM_DISK_SIZE" => (broker(&self.broker.disk_gets)?, Of::Bytes),
            "BROKER_ACK_NUMS" => (broker(&self.broker.acks)?, Of::Count),
            "BROKER_CK_NUMS" => (broker(&self.broker.checkpoints)?, Of::Count),
            _ => return None,
        })
    }
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self {
            series: HashMap::new(),
            full_at_s: None,
        }
    }
}

impl Table<Arc<str>> {
    fn add_borrowed(&mut self, key: &str, more: &Sums, now_s: u64) {
        match self.series.get_mut(key) {
            Some(series) => series.add(now_s, more),
            None => self.add(Arc::from(key), more, now_s),
        }
    }
}

impl Table<Reading> {
    /// `topic@group`; either may contain the sign itself.
    fn get_by_key(&self, key: &str) -> Option<&Series> {
        let mut splits = key.match_indices('@');
        splits.find_map(|(at, _)| self.series.get(&(&key[..at], &key[at + 1..])))
    }
}

impl<K: Eq + Hash> Table<K> {
    fn add(&mut self, key: K, more: &Sums, now_s: u64) {
        if let Some(series) = self.series.get_mut(&key) {
            return series.add(now_s, more);
        }
        if !self.has_room(now_s) {
            return;
        }
        let mut series = Series::new(now_s);
        series.add(now_s, more);
        self.series.insert(key, series);
    }

    /// Makes some by forgetting what is over.
    fn has_room(&mut self, now_s: u64) -> bool {
        if self.series.len() < KEYS_MAX {
            return true;
        }
        if self.full_at_s.is_some_and(|then| now_s < then + 3600) {
            return false;
        }
        self.full_at_s = Some(now_s);
        self.series.retain(|_, series| !series.is_over(now_s));
        let has_room = self.series.len() < KEYS_MAX;
        if !has_room {
            tracing::warn!(
                KEYS_MAX,
                "more topics or groups are busy than are counted one by one"
            );
        }
        has_room
    }
}

impl Equivalent<Reading> for (&str, &str) {
    fn equivalent(&self, key: &Reading) -> bool {
        *key.topic == *self.0 && *key.group == *self.1
    }
}

fn reading(group: &str, topic: &str) -> Reading {
    Reading {
        topic: topic.into(),
        group: group.into(),
    }
}

fn once() -> Sums {
    Sums {
        count: 1,
        times: 1,
        ..Sums::default()
    }
}

/// `3@topic@group` means all queues here.
fn without_queue(key: &str) -> &str {
    match key.split_once('@') {
        Some((queue, rest)) if rest.contains('@') && queue.parse::<u32>().is_ok() => rest,
        _ => key,
    }
}

fn rate(series: Option<&Series>, now_s: u64) -> f64 {
    let Some(series) = series else {
        return 0.0;
    };
    let looked = series.look(now_s, Window::Minute);
    looked.sums.count as f64 / looked.seconds
}

fn item(series: &Series, of: Of, window: Window, now_s: u64) -> StatsItem {
    let looked = series.look(now_s, window);
    let sums = looked.sums;
    let (sum, times) = match of {
        Of::Count => (sums.count, sums.times),
        Of::Bytes => (sums.bytes, sums.times),
        Of::Millis => (sums.took_us / 1000, sums.measured),
    };
    let average = match of {
        Of::Millis => sums.took_us as f64 / 1000.0,
        _ => sum as f64,
    };
    StatsItem {
        sum: i64::try_from(sum).unwrap_or(i64::MAX),
        tps: sum as f64 / looked.seconds,
        avgpt: if times == 0 {
            0.0
        } else {
            average / times as f64
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        Figures::new("cluster", 0)
    }

    fn put(figures: &Figures, topic: &str, bytes: u64, now_s: u64) {
        let put = Put {
            queue: engine::QueueNo(0),
            messages: 1,
            bytes,
            answered: 0,
            waited_us: 0,
        };
        figures.0.borrow_mut().put(topic, &put, now_s);
    }

    fn got(figures: &Figures, group: &str, topic: &str, got: Got, now_s: u64) {
        figures
            .0
            .borrow_mut()
            .got(reading(group, topic), &got, now_s);
    }

    #[test]
    fn a_topics_figures_are_found_under_rocketmqs_names() {
        let figures = figures();
        for second in 0..60 {
            put(&figures, "t", 200, second);
        }
        let named = |name, key| figures.named(name, key, 60).expect("counted");
        let minute = named("TOPIC_PUT_NUMS", "t").stats_minute;
        assert_eq!((minute.sum, minute.tps, minute.avgpt), (60, 1.0, 1.0));
        assert_eq!(named("TOPIC_PUT_SIZE", "t").stats_day.sum, 12_000);
        assert_eq!(named("BROKER_PUT_NUMS", "cluster").stats_hour.sum, 60);
        assert_eq!(figures.put_rate("t", 60), 1.0);
        assert_eq!(figures.named("TOPIC_PUT_NUMS", "u", 60), None);
        assert_eq!(figures.named("BROKER_PUT_NUMS", "other", 60), None);
        assert_eq!(figures.named("TOPIC_PUT_DREAMS", "t", 60), None);
    }

    #[test]
    fn a_groups_figures_know_its_topic_and_what_came_from_the_disk() {
        let figures = figures();
        let one = Got {
            messages: 10,
            bytes: 1000,
            pulls: 2,
            took_us: 8000,
            disk_messages: 4,
            disk_bytes: 400,
            ..Got::default()
        };
        got(&figures, "g", "t", one, 5);
        let named = |name, key| figures.named(name, key, 6).expect("counted").stats_minute;
        assert_eq!(named("GROUP_GET_NUMS", "t@g").avgpt, 5.0);
        assert_eq!(named("GROUP_GET_SIZE", "t@g").sum, 1000);
        assert_eq!(named("GROUP_GET_FROM_DISK_NUMS", "t@g").sum, 4);
        assert_eq!(named("GROUP_GET_LATENCY", "t@g").avgpt, 4.0);
        assert_eq!(named("GROUP_GET_LATENCY", "3@t@g").sum, 8);
        assert_eq!(figures.named("GROUP_GET_NUMS", "g@t", 6), None);
        figures.group_gone("g");
        assert_eq!(figures.named("GROUP_GET_NUMS", "t@g", 6), None);
    }

    #[test]
    fn system_topics_are_told_apart() {
        let figures = figures();
        put(&figures, "SCHEDULE_TOPIC_XXXX", 1, 1);
        put(&figures, "t", 1, 1);
        let sum = |name| {
            figures
                .named(name, "cluster", 2)
                .expect("there")
                .stats_day
                .sum
        };
        assert_eq!(sum("BROKER_PUT_NUMS"), 2);
        assert_eq!(sum("BROKER_PUT_NUMS_WITHOUT_SYSTEM_TOPIC"), 1);
    }

    #[test]
    fn what_was_given_back_is_counted_for_the_topic_it_came_from() {
        let figures = figures();
        figures.sent_back("g", "t", 1);
        figures.given_up("g", "t", 1);
        figures.sent_back("g", "t", 2);
        let sum = |name| {
            figures
                .named(name, "t@g", 3)
                .expect("there")
                .stats_minute
                .sum
        };
        assert_eq!((sum("SNDBCK_PUT_NUMS"), sum("DLQ_PUT_NUMS")), (2, 1));
        figures.topic_gone("t");
        assert_eq!(figures.named("SNDBCK_PUT_NUMS", "t@g", 3), None);
    }

    #[test]
    fn there_is_a_most_and_what_was_idle_for_a_day_makes_room() {
        let mut table = Table::<u32>::default();
        for key in 0..=KEYS_MAX as u32 {
            table.add(key, &once(), 0);
        }
        assert_eq!(table.series.len(), KEYS_MAX);
        let later = 100_000;
        table.add(7, &once(), later);
        table.add(KEYS_MAX as u32, &once(), later);
        assert_eq!(table.series.len(), 2);
    }
}
