//! Many delayed messages whose time is far off, and a few beside them that become due.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::arrivals::Arrivals;
use crate::broker_info::BrokerInfo;
use crate::commands::plan_at;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::fill;
use crate::load::produce::{self, Delay};
use crate::load::{self, Lane, Live, Plan, StopWhen};
use crate::options::{Sending, Window};
use crate::payload::Clock;
use crate::report::Latency;
use crate::wire::Encoding;

pub struct Timers {
    lanes: Vec<Lane>,
    count: u64,
}

const FAR_OFF_MS: u64 = 6 * 3_600_000;
const BODY_BYTES: usize = 128;
const PARK_LIMIT_S: f64 = 300.0;
const PARK_POLL: Duration = Duration::from_millis(50);
/// Of those that become due.
const PER_SECOND: f64 = 1_000.0;

pub fn park(broker: SocketAddr, count: u64) -> Result<Timers> {
    let lanes = fill::make_topic(broker, "scale-timers")?;
    let wall_ms = Clock::start().now_ns() / 1_000_000 + FAR_OFF_MS;
    let window = Window {
        duration: PARK_LIMIT_S,
        warmup: 0.0,
    };
    let plan = Plan {
        produce: Some(delayed(16, None, Delay::At { wall_ms })),
        stop_when: StopWhen::Acknowledged(count),
        ..plan_at(broker, lanes.clone(), &window)
    };
    let sent = load::run(plan, &Live::default())?.sent;
    let sent = sent.expect("the plan sends");
    if sent.refused.total() > 0 || sent.messages_total < count {
        return Err(Error::Failed(format!(
            "{} delayed messages were taken of {count}; refused: {:?}",
            sent.messages_total, sent.refused.0
        )));
    }
    let timers = Timers {
        lanes,
        count: sent.messages_total,
    };
    let deadline = Instant::now() + Duration::from_secs_f64(PARK_LIMIT_S);
    while timers.check(broker).is_err() && Instant::now() < deadline {
        thread::sleep(PARK_POLL);
    }
    timers.check(broker)?;
    Ok(timers)
}

impl Timers {
    /// All of them wait, and none was delivered.
    pub fn check(&self, broker: SocketAddr) -> Result<()> {
        let waiting = BrokerInfo::of(broker)?.number(BrokerInfo::TIMERS);
        if waiting.is_none_or(|waiting| waiting < self.count as f64) {
            return Err(Error::Failed(format!(
                "{waiting:?} timers wait instead of {}",
                self.count
            )));
        }
        let mut control = Control::connect(broker)?;
        for lane in &self.lanes {
            let delivered = control.max_offset(&lane.topic, lane.queue)?;
            if delivered > 0 {
                return Err(Error::Failed(format!(
                    "{delivered} messages were delivered hours before their time"
                )));
            }
        }
        Ok(())
    }
}

/// Of messages that become due while the others wait.
pub fn lateness(broker: SocketAddr, window_s: f64) -> Result<Latency> {
    let lanes = fill::make_topic(broker, "scale-due")?;
    let delay = Delay::Between {
        least_ms: 1_000,
        most_ms: 2_000,
    };
    let window = Window {
        duration: window_s,
        warmup: 2.5,
    };
    let (arrivals, observer) = Arrivals::observed();
    let starts = vec![0; lanes.len()];
    let plan = Plan {
        produce: Some(delayed(4, Some(PER_SECOND), delay)),
        consume: Some((fill::reader(1), starts)),
        observer: Some(observer),
        ..plan_at(broker, lanes, &window)
    };
    let outcome = load::run(plan, &Live::default())?;
    arrivals.judge("the broker")?;
    let figures = fill::checked(&outcome, 0)?;
    let consumed = figures.consumed.expect("the plan reads");
    match consumed.counts.messages {
        0 => Err(Error::Failed("nothing became due".into())),
        _ => Ok(consumed.latency),
    }
}

fn delayed(connections: u16, rate: Option<f64>, delay: Delay) -> produce::Settings {
    let sending = Sending {
        connections,
        depth: 32,
        size: BODY_BYTES,
        batch: 1,
        rate,
    };
    produce::Settings {
        delay: Some(delay),
        ..sending.settings(Encoding::Json)
    }
}
