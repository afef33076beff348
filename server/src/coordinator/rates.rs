//! Messages per second over the last 10, 60 and 600 seconds, and the day's counts, from counters that only grow.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::Coordinator;
use crate::stats::Totals;

const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Ten minutes and the sample they are counted from.
const SAMPLES_MAX: usize = 61;
const WINDOWS_S: [u64; 3] = [10, 60, 600];

/// Lives on the coordinator's core.
#[derive(Debug)]
pub struct Rates(RefCell<History>);

#[derive(Debug)]
struct History {
    /// Newest last.
    samples: VecDeque<(i64, Totals)>,
    /// Of the last sample, to notice midnight.
    hour: u8,
    yesterday_morning: Totals,
    this_morning: Totals,
}

/// Counts of messages put and got, up to three moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Days {
    pub yesterday_morning: Totals,
    pub this_morning: Totals,
}

impl Rates {
    pub fn new(now_ms: i64, hour: u8) -> Self {
        Self(RefCell::new(History {
            samples: VecDeque::from([(now_ms, Totals::default())]),
            hour,
            yesterday_morning: Totals::default(),
            this_morning: Totals::default(),
        }))
    }

    /// `hour`: of the day, where the broker is.
    pub fn sample(&self, now_ms: i64, hour: u8, totals: Totals) {
        let mut history = self.0.borrow_mut();
        if history.samples.len() == SAMPLES_MAX {
            history.samples.pop_front();
        }
        history.samples.push_back((now_ms, totals));
        if std::mem::replace(&mut history.hour, hour) > hour {
            history.yesterday_morning = history.this_morning;
            history.this_morning = totals;
        }
    }

    /// `10s 60s 600s`, as tools expect it; a young broker averages over its age.
    pub fn per_second(&self, now_ms: i64, now: Totals, count: impl Fn(&Totals) -> u64) -> String {
        let history = self.0.borrow();
        let rates = WINDOWS_S.map(|window_s| {
            let from_ms = now_ms - i64::try_from(window_s * 1000).unwrap_or(i64::MAX);
            // The last sample that covers the window, else the oldest.
            let old_enough = history.samples.iter().rev().find(|(at, _)| *at <= from_ms);
            let Some((at_ms, then)) = old_enough.or(history.samples.front()) else {
                return 0.0;
            };
            let elapsed_ms = (now_ms - at_ms).max(1);
            let more = count(&now).saturating_sub(count(then));
            more as f64 * 1000.0 / elapsed_ms as f64
        });
        format!("{} {} {}", rates[0], rates[1], rates[2])
    }

    pub fn days(&self) -> Days {
        let history = self.0.borrow();
        Days {
            yesterday_morning: history.yesterday_morning,
            this_morning: history.this_morning,
        }
    }
}

pub(super) async fn run(coordinator: Rc<Coordinator>) {
    while !coordinator.is_stopped() {
        reactor::sleep(SAMPLE_EVERY).await;
        let totals = coordinator.shared.stats.totals();
        let now_ms = reactor::wall_ms();
        let hour = reactor::local_hour(now_ms);
        coordinator.rates.sample(now_ms, hour, totals);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(messages: u64) -> Totals {
        Totals {
            put_messages: messages,
            ..Totals::default()
        }
    }

    #[test]
    fn windows_are_counted_from_the_sample_that_covers_them() {
        let rates = Rates::new(0, 12);
        for tenth in 1..=70 {
            rates.sample(
                tenth * 10_000,
                12,
                put(u64::try_from(tenth).expect("small") * 100),
            );
        }
        let text = rates.per_second(700_000, put(8000), |t| t.put_messages);
        // 10 s: 8000 - 6900; 60 s: 8000 - 6400; 600 s: 8000 - 1000.
        assert_eq!(
            text,
            format!("{} {} {}", 110.0, 1600.0 / 60.0, 7000.0 / 600.0)
        );
    }

    #[test]
    fn a_young_broker_averages_over_its_age() {
        let rates = Rates::new(0, 12);
        let text = rates.per_second(2_000, put(100), |t| t.put_messages);
        assert_eq!(text, "50 50 50");
    }

    #[test]
    fn a_new_day_moves_this_morning_to_yesterday() {
        let rates = Rates::new(0, 23);
        for (hour, messages) in [
            (23, 5),
            (0, 10),
            (0, 12),
            (1, 14),
            (23, 20),
            (0, 30),
            (1, 40),
        ] {
            rates.sample(0, hour, put(messages));
        }
        let days = rates.days();
        assert_eq!(days.yesterday_morning.put_messages, 10);
        assert_eq!(days.this_morning.put_messages, 30);
    }
}
