//! The generator: one thread, one epoll loop, sockets that send and sockets that read side by side, so that a
//! message's way is timed by one clock. It shares the machine with the broker it measures and therefore costs as
//! little as it can: no allocation and no clock read per message, many frames per system call.

mod choice;
pub mod consume;
pub mod pop;
pub mod produce;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::time::Timespec;

pub use self::choice::Choice;
use crate::error::{Error, Result};
use crate::ledger::{Counts, Ledger};
use crate::payload::Clock;
use crate::process;

/// One queue of one topic.
#[derive(Clone, Debug)]
pub struct Lane {
    pub topic: String,
    pub queue: u32,
}

pub struct Plan {
    pub broker: SocketAddr,
    pub lanes: Vec<Lane>,
    pub produce: Option<produce::Settings>,
    /// With the first offset of every lane.
    pub consume: Option<(consume::Settings, Vec<u64>)>,
    pub pop: Option<pop::Settings>,
    pub warmup: Duration,
    pub duration: Duration,
    /// How long answers and messages that are still under way may take after the window.
    pub drain: Duration,
    pub stop_when: StopWhen,
    /// Whose CPU time the window is charged with.
    pub server_pid: Option<u32>,
    pub cpu: Option<usize>,
    pub recorder: Option<produce::Recorder>,
    pub observer: Option<consume::Observer>,
    /// The lanes may begin in the middle of what producers have sent.
    pub joins_late: bool,
    /// A broken connection ends only itself; otherwise it ends the run.
    pub may_disconnect: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopWhen {
    /// The window is over; what is under way is still awaited.
    Time,
    /// Every queue has been read to its end (or the time is up).
    Drained,
    /// So many messages have been read, and acknowledged where they are popped (or the time is up).
    Consumed(u64),
    /// So many messages have been acknowledged (or the time is up).
    Acknowledged(u64),
}

/// Counters that another thread may watch, and the one thing it may say.
#[derive(Default)]
pub struct Live {
    pub acknowledged: AtomicU64,
    pub consumed: AtomicU64,
    /// Set once the generator is past its warm-up.
    pub measuring: AtomicBool,
    pub stop: AtomicBool,
}

pub struct Outcome {
    pub window: Duration,
    pub sent: Option<Sent>,
    pub consumed: Option<Consumed>,
    pub server_cpu_us: Option<u64>,
    pub server_memory: Option<process::Memory>,
    pub generator_cpu_us: u64,
}

pub struct Sent {
    /// Acknowledged within the window.
    pub messages: u64,
    /// Acknowledged in the whole run.
    pub messages_total: u64,
    pub refused: Refusals,
    pub latencies: Latencies,
    /// Open loop: requests whose time came within the window and that never left.
    pub behind: u64,
}

pub struct Consumed {
    /// Within the window.
    pub messages: u64,
    pub bytes: u64,
    /// Over the whole run.
    pub counts: Counts,
    pub latencies: Latencies,
    pub refused: Refusals,
}

/// Answers that were a no, by code, with the last remark.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Refusals(pub BTreeMap<i32, (u64, String)>);

impl Refusals {
    pub fn add(&mut self, code: i32, remark: &str) {
        let entry = self.0.entry(code).or_default();
        entry.0 += 1;
        if entry.1.is_empty() {
            entry.1.push_str(remark);
        }
    }

    pub fn total(&self) -> u64 {
        self.0.values().map(|(count, _)| count).sum()
    }
}

const LATENCY_NS_MIN: u64 = 1_000;
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// For nanoseconds, three digits.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, 3)
        .expect("constant bounds that are known to be right")
}

/// Latencies of what was meant to start within the window.
pub struct Latencies {
    pub histogram: Histogram<u64>,
    from_ns: u64,
    to_ns: u64,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies {
            histogram: new_histogram(),
            from_ns: u64::MAX,
            to_ns: u64::MAX,
        }
    }
}

impl Latencies {
    pub fn record(&mut self, intended_ns: u64, now_ns: u64) {
        if (self.from_ns..self.to_ns).contains(&intended_ns) {
            self.histogram
                .saturating_record(now_ns.saturating_sub(intended_ns));
        }
    }

    pub fn open(&mut self, from_ns: u64) {
        self.from_ns = from_ns;
    }

    fn close(&mut self, to_ns: u64) {
        self.to_ns = to_ns;
    }
}

/// Enough where nothing is delayed.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How often the loop looks at the time when nothing happens.
const TICK_NS: u64 = 10_000_000;
const EVENTS_MAX: usize = 128;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Warmup,
    Window,
    Draining,
}

/// Runs the plan on the calling thread, which becomes the generator until it is over.
pub fn run(plan: Plan, live: &Live) -> Result<Outcome> {
    if let Some(cpu) = plan.cpu {
        process::pin(cpu)
            .map_err(|error| Error::io(format!("pinning to CPU {cpu}"))(error.into()))?;
    }
    // An open loop is only as precise as its wake-ups.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))
        .map_err(|error| Error::io("timer slack")(error.into()))?;
    Generator::new(plan, live)?.run()
}

struct Generator<'a> {
    live: &'a Live,
    clock: Clock,
    epoll: OwnedFd,
    producers: Option<produce::Producers>,
    consumers: Option<consume::Consumers>,
    poppers: Option<pop::Poppers>,
    producer_count: u64,
    consumer_count: u64,
    phase: Phase,
    phase_ends_ns: u64,
    marks: Marks,
    ends: Marks,
    behind: u64,
    /// Which messages the consumers are to see.
    choice: Choice,
    plan: Plan,
}

/// Counters at one moment.
#[derive(Clone, Copy, Default)]
struct Marks {
    at_ns: u64,
    acknowledged: u64,
    consumed: u64,
    bytes: u64,
    server_cpu_us: Option<u64>,
    own_cpu_us: u64,
}

impl<'a> Generator<'a> {
    fn new(mut plan: Plan, live: &'a Live) -> Result<Generator<'a>> {
        let clock = Clock::start();
        let connecting = || format!("connecting to {}", plan.broker);
        let run = fastrand::u16(..);
        let choice = match &plan.consume {
            Some((settings, _)) => settings.choice,
            None => Choice::ALL,
        };
        let producers = match plan.produce.take() {
            Some(settings) => Some(
                produce::Producers::connect(
                    plan.broker,
                    &plan.lanes,
                    run,
                    clock.now_ns(),
                    settings,
                )
                .map_err(Error::io(connecting()))?,
            ),
            None => None,
        };
        let consumers = match plan.consume.take() {
            Some((settings, starts)) => Some(
                consume::Consumers::connect(plan.broker, &plan.lanes, &starts, settings)
                    .map_err(Error::io(connecting()))?,
            ),
            None => None,
        };
        let poppers = match plan.pop.take() {
            Some(settings) => Some(
                pop::Poppers::connect(plan.broker, settings).map_err(Error::io(connecting()))?,
            ),
            None => None,
        };
        let mut generator = Generator {
            live,
            clock,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)
                .map_err(|error| Error::io("epoll")(error.into()))?,
            producer_count: producers
                .as_ref()
                .map_or(0, |some| some.connections().count()) as u64,
            consumer_count: consumers
                .as_ref()
                .map_or(0, |some| some.connections().count()) as u64,
            producers,
            consumers,
            poppers,
            phase: Phase::Warmup,
            phase_ends_ns: clock.now_ns() + plan.warmup.as_nanos() as u64,
            marks: Marks::default(),
            ends: Marks::default(),
            behind: 0,
            choice,
            plan,
        };
        if let Some(producers) = generator.producers.as_mut() {
            producers.recorder = generator.plan.recorder.take();
        }
        if let Some(consumers) = generator.consumers.as_mut() {
            consumers.observer = generator.plan.observer.take();
            if generator.plan.joins_late {
                consumers.ledger = Ledger::joining_late();
            }
        }
        generator.register()?;
        Ok(generator)
    }

    fn register(&self) -> Result<()> {
        let producing = self.producers.iter().flat_map(|some| some.connections());
        let consuming = self.consumers.iter().flat_map(|some| some.connections());
        let popping = self.poppers.iter().flat_map(|some| some.connections());
        for (token, connection) in producing.chain(consuming).chain(popping).enumerate() {
            epoll::add(
                &self.epoll,
                &connection.stream,
                epoll::EventData::new_u64(token as u64),
                epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET,
            )
            .map_err(|error| Error::io("epoll")(error.into()))?;
        }
        Ok(())
    }

    fn run(mut self) -> Result<Outcome> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        if let Some(consumers) = self.consumers.as_mut() {
            consumers.pull();
        }
        if let Some(producers) = self.producers.as_mut() {
            producers.prime(self.clock.now_ns());
        }
        if let Some(poppers) = self.poppers.as_mut() {
            poppers.prime();
        }
        loop {
            let now_ns = self.clock.now_ns();
            if self.advance(now_ns) {
                return self.finish();
            }
            let sending = self.phase != Phase::Draining;
            let due_ns = match self.producers.as_mut() {
                Some(producers) if sending => producers.issue_due(now_ns),
                _ => None,
            };
            self.wait(&mut events, now_ns, due_ns)?;
            for event in events.drain(..) {
                let now_ns = self.clock.now_ns();
                self.ready(event.data.u64(), now_ns, sending);
            }
            self.show();
            self.check_connections()?;
        }
    }

    fn ready(&mut self, token: u64, now_ns: u64, sending: bool) {
        let registered = "its sockets are registered";
        let consumers_from = self.producer_count;
        let poppers_from = consumers_from + self.consumer_count;
        if token >= poppers_from {
            let poppers = self.poppers.as_mut().expect(registered);
            poppers.ready((token - poppers_from) as usize);
        } else if token >= consumers_from {
            let consumers = self.consumers.as_mut().expect(registered);
            consumers.ready((token - consumers_from) as usize, now_ns);
        } else {
            let producers = self.producers.as_mut().expect(registered);
            producers.ready(token as usize, now_ns, sending);
        }
    }

    fn wait(&self, events: &mut Vec<epoll::Event>, now_ns: u64, due_ns: Option<u64>) -> Result<()> {
        let until_ns = due_ns
            .unwrap_or(u64::MAX)
            .min(now_ns + TICK_NS)
            .min(self.phase_ends_ns.max(now_ns + 1));
        // Issuing took time: what has become due meanwhile must not wait.
        let wait_ns = until_ns.saturating_sub(self.clock.now_ns());
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: wait_ns.min(TICK_NS) as _,
        };
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(events),
            Some(&timeout),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(Error::io("epoll")(error.into())),
        }
    }

    /// Moves from phase to phase; true when the run is over.
    fn advance(&mut self, now_ns: u64) -> bool {
        let stopped = self.live.stop.load(Ordering::Relaxed)
            || self
                .producers
                .as_ref()
                .is_some_and(|producers| producers.all_disconnected());
        match self.phase {
            Phase::Warmup if now_ns >= self.phase_ends_ns || stopped => {
                self.phase = Phase::Window;
                self.phase_ends_ns = now_ns + self.plan.duration.as_nanos() as u64;
                self.marks = self.mark(now_ns);
                self.each_latencies(|latencies| latencies.open(now_ns));
                self.live.measuring.store(true, Ordering::Relaxed);
                false
            }
            Phase::Window if now_ns >= self.phase_ends_ns || stopped || self.is_done() => {
                self.phase = Phase::Draining;
                self.phase_ends_ns = now_ns + self.plan.drain.as_nanos() as u64;
                self.ends = self.mark(now_ns);
                self.behind = self
                    .producers
                    .as_mut()
                    .map_or(0, |producers| producers.end(now_ns));
                self.each_latencies(|latencies| latencies.close(now_ns));
                self.phase_is_over(now_ns)
            }
            Phase::Draining => self.phase_is_over(now_ns),
            _ => {
                if let Some(consumers) = self.consumers.as_mut() {
                    consumers.retry_refused(now_ns);
                }
                false
            }
        }
    }

    fn is_done(&self) -> bool {
        match self.plan.stop_when {
            StopWhen::Time => false,
            StopWhen::Drained => self
                .consumers
                .as_ref()
                .is_some_and(|consumers| consumers.drained()),
            StopWhen::Consumed(count) => self.consumed() >= count,
            StopWhen::Acknowledged(count) => {
                let producers = self.producers.as_ref();
                producers.is_some_and(|producers| producers.totals.acknowledged >= count)
            }
        }
    }

    /// While draining: every answer has come and every acknowledged message was read.
    fn phase_is_over(&self, now_ns: u64) -> bool {
        let Some(producers) = &self.producers else {
            return true;
        };
        let answered = producers.in_flight() == 0;
        let read = self
            .consumers
            .as_ref()
            .is_none_or(|consumers| consumers.ledger.messages() >= producers.totals.to_arrive);
        (answered && read) || now_ns >= self.phase_ends_ns
    }

    fn mark(&self, at_ns: u64) -> Marks {
        Marks {
            at_ns,
            acknowledged: self
                .producers
                .as_ref()
                .map_or(0, |some| some.totals.acknowledged),
            consumed: self.consumed(),
            bytes: self.consumers.as_ref().map_or(0, |some| some.totals.bytes)
                + self.poppers.as_ref().map_or(0, |some| some.totals.bytes),
            server_cpu_us: self.plan.server_pid.and_then(process::cpu_time_us),
            own_cpu_us: process::own_thread_us(),
        }
    }

    fn each_latencies(&mut self, mut each: impl FnMut(&mut Latencies)) {
        if let Some(producers) = self.producers.as_mut() {
            each(&mut producers.totals.latencies);
        }
        if let Some(consumers) = self.consumers.as_mut() {
            each(&mut consumers.totals.latencies);
        }
    }

    fn show(&self) {
        if let Some(producers) = &self.producers {
            self.live
                .acknowledged
                .store(producers.totals.acknowledged, Ordering::Relaxed);
        }
        self.live.consumed.store(self.consumed(), Ordering::Relaxed);
    }

    fn consumed(&self) -> u64 {
        let pulled = self.consumers.as_ref().map(|some| some.ledger.messages());
        let popped = self.poppers.as_ref().map(|some| some.totals.acknowledged);
        pulled.unwrap_or(0) + popped.unwrap_or(0)
    }

    fn check_connections(&self) -> Result<()> {
        let broken = self
            .producers
            .as_ref()
            .map_or(0, |some| some.totals.disconnected)
            + self
                .consumers
                .as_ref()
                .map_or(0, |some| some.totals.disconnected)
            + self
                .poppers
                .as_ref()
                .map_or(0, |some| some.totals.disconnected);
        if broken > 0 && !self.plan.may_disconnect {
            return Err(Error::Failed(
                "the broker closed a connection under load".into(),
            ));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Outcome> {
        let (from, to) = (self.marks, self.ends);
        if let (Some(producers), Some(consumers)) = (&self.producers, &mut self.consumers) {
            let mut refused: BTreeMap<(u32, u32), Vec<u64>> = BTreeMap::new();
            for &(producer, lane, sequence) in &producers.totals.refused_sequences {
                refused.entry((producer, lane)).or_default().push(sequence);
            }
            for (producer, lane, sent) in producers.sent() {
                let refused = refused.get(&(producer, lane)).into_iter().flatten();
                let refused: Vec<u64> = refused.filter_map(|&at| self.choice.rank(at)).collect();
                let sent = self.choice.count(sent);
                consumers.ledger.expect(producer, lane, sent, &refused);
            }
        }
        let sent = self.producers.map(|producers| Sent {
            messages: to.acknowledged - from.acknowledged,
            messages_total: producers.totals.acknowledged,
            refused: producers.totals.refused,
            latencies: producers.totals.latencies,
            behind: self.behind,
        });
        let pulled = self.consumers.map(|consumers| {
            let totals = consumers.totals;
            (consumers.ledger, totals.latencies, totals.refused)
        });
        let popped = self
            .poppers
            .map(|poppers| (poppers.ledger, Latencies::default(), poppers.totals.refused));
        let consumed = pulled
            .or(popped)
            .map(|(ledger, latencies, refused)| Consumed {
                messages: to.consumed - from.consumed,
                bytes: to.bytes - from.bytes,
                counts: ledger.counts(),
                latencies,
                refused,
            });
        Ok(Outcome {
            window: Duration::from_nanos(to.at_ns - from.at_ns),
            sent,
            consumed,
            server_cpu_us: to
                .server_cpu_us
                .zip(from.server_cpu_us)
                .map(|(to, from)| to - from),
            server_memory: self.plan.server_pid.and_then(process::memory),
            generator_cpu_us: to.own_cpu_us - from.own_cpu_us,
        })
    }
}
