//! A run from its first start of the broker to its verdict: load, members that come and go, kills, a look at everything
//! once a second, and in the end the wait for what is still to come.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::admin::{Admin, NewTopic};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, interval};

use crate::broker::Broker;
use crate::clock::now_ms;
use crate::error::{Error, Result};
use crate::ledger::{Group, Ledger, Patience};
use crate::load::Load;
use crate::lock::lock;
use crate::members::Members;
use crate::report::{Report, Sent};
use crate::stamp::Stream;
use crate::watch::hiccups::Hiccups;
use crate::watch::log::Log;
use crate::watch::memory::Memory;
use crate::watch::waits::Waits;

pub struct Plan {
    pub broker_command: String,
    pub broker_log: PathBuf,
    pub name_server: String,
    /// Messages a second.
    pub rate: f64,
    pub duration: Duration,
    pub kill_every: Duration,
    pub members_every: Duration,
    /// How often members look at their shares unasked.
    pub rebalance: Duration,
    /// How long everything may take to come after the last was sent.
    pub drain_limit: Duration,
    pub seed: u64,
}

const KEYS: u16 = 32;
const QUEUES: i32 = 8;
/// The longest delay of a timed message.
const AHEAD_MAX: Duration = Duration::from_secs(20);
const START_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// What should not come any more has so long to do it.
const QUIET: Duration = Duration::from_secs(2);
const MINUTE: u64 = 60;

struct Run {
    plan: Plan,
    began: Instant,
    broker: Broker,
    ledger: Arc<Mutex<Ledger>>,
    load: Load,
    members: Members,
    hiccups: Hiccups,
    log: Log,
    memory: Memory,
    waits: Waits,
    starts: Vec<Duration>,
    random: fastrand::Rng,
    endings: Endings,
}

/// The signals that end a run at once.
struct Endings {
    interrupt: Signal,
    terminate: Signal,
}

impl Endings {
    fn new() -> Result<Endings> {
        let wait = |kind| signal(kind).map_err(Error::io("waiting for signals"));
        Ok(Endings {
            interrupt: wait(SignalKind::interrupt())?,
            terminate: wait(SignalKind::terminate())?,
        })
    }

    async fn come(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Call it on the main thread: the broker dies with the thread.
pub async fn run(plan: Plan) -> Result<Report> {
    let mut run = Run::begin(plan).await?;
    let is_interrupted = run.mix().await? || run.drain().await?;
    run.end(is_interrupted).await
}

impl Plan {
    /// What excuses a second delivery, and for how long: members look at their shares twice at most until all are back, and
    /// a queue that was locked is asked for again half a second later. Longer ways: a message given back waits 10 s, a
    /// question about a transaction is asked twice at most, each time after some seconds.
    fn patience(&self) -> Patience {
        Patience {
            kill_ms: 2 * self.rebalance.as_millis() as i64 + 3_000,
            members_ms: 3_000,
            retried_ms: 14_000,
            asked_ms: 14_000,
        }
    }
}

impl Run {
    async fn begin(plan: Plan) -> Result<Run> {
        let endings = Endings::new()?;
        let hiccups = Hiccups::watch(2 * plan.duration + 2 * plan.drain_limit)?;
        let mut log = Log::new(&plan.broker_log);
        let (from_ms, from) = (now_ms(), Instant::now());
        let broker = Broker::start(&plan.broker_command, &plan.broker_log).await?;
        log.stalls.started(from_ms, now_ms());
        let starts = vec![from.elapsed()];
        make_topics(&plan.name_server).await?;
        let ledger = Arc::new(Mutex::new(Ledger::new(KEYS, plan.patience())));
        let members = Members::start(
            &plan.name_server,
            plan.members_every,
            plan.rebalance,
            ledger.clone(),
        );
        let members = members.await?;
        let ahead = AHEAD_MAX.min(plan.duration / 4);
        let load = Load::start(&plan.name_server, plan.rate, ahead, KEYS, ledger.clone());
        Ok(Run {
            load: load.await?,
            members,
            began: Instant::now(),
            random: fastrand::Rng::with_seed(plan.seed),
            memory: Memory::default(),
            waits: Waits::default(),
            plan,
            broker,
            ledger,
            hiccups,
            log,
            starts,
            endings,
        })
    }

    /// True if it was interrupted.
    async fn mix(&mut self) -> Result<bool> {
        let end = self.began + self.plan.duration;
        let mut seconds = interval(Duration::from_secs(1));
        let mut looked = 0;
        let mut kill_at = self.next_kill();
        loop {
            tokio::select! {
                () = self.endings.come() => return Ok(true),
                _ = seconds.tick() => {
                    self.look()?;
                    looked += 1;
                    if looked % MINUTE == 0 {
                        println!("{}", self.report().line());
                    }
                }
                () = tokio::time::sleep_until(kill_at) => {
                    self.kill().await?;
                    kill_at = self.next_kill();
                }
                () = tokio::time::sleep_until(end) => return Ok(false),
            }
        }
    }

    /// Around each multiple of the interval: up to a quarter before and after.
    fn next_kill(&mut self) -> Instant {
        let number = self.starts.len() as f64;
        let moment = number - 0.25 + 0.5 * self.random.f64();
        self.began + self.plan.kill_every.mul_f64(moment)
    }

    async fn kill(&mut self) -> Result<()> {
        let (from_ms, from) = (now_ms(), Instant::now());
        let event = lock(&self.ledger).events().begin(None, from_ms);
        self.broker.start_again().await?;
        let to_ms = now_ms();
        lock(&self.ledger).events().end(event, to_ms);
        self.log.stalls.started(from_ms, to_ms);
        self.starts.push(from.elapsed());
        Ok(())
    }

    fn look(&mut self) -> Result<()> {
        if let Some(status) = self.broker.ended() {
            let tail = self.broker.log_tail();
            return Err(Error::Failed(format!(
                "the broker ended by itself with {status}:\n{tail}"
            )));
        }
        self.memory.sample(self.broker.pid());
        self.waits.sample(self.broker.pid());
        self.log.read(&self.hiccups, self.waits.recent_ms());
        Ok(())
    }

    /// Until every group has everything, or time is up. True if it was interrupted.
    async fn drain(&mut self) -> Result<bool> {
        let deadline = Instant::now() + self.plan.drain_limit;
        let ending = async {
            tokio::join!(self.load.stop(), self.members.settle());
        };
        tokio::select! {
            () = self.endings.come() => return Ok(true),
            () = ending => {}
        }
        let mut polls = interval(POLL);
        let mut quiet_from: Option<Instant> = None;
        loop {
            tokio::select! {
                () = self.endings.come() => return Ok(true),
                _ = polls.tick() => {}
            }
            self.look()?;
            if self.missing() > 0 {
                quiet_from = None;
            } else if quiet_from.get_or_insert_with(Instant::now).elapsed() >= QUIET {
                return Ok(false);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
        }
    }

    fn missing(&self) -> u64 {
        let ledger = lock(&self.ledger);
        let missing = Group::ALL.map(|group| ledger.summary(group).missing);
        missing.iter().sum()
    }

    fn report(&self) -> Report {
        let ledger = lock(&self.ledger);
        Report {
            seed: self.plan.seed,
            elapsed: self.began.elapsed(),
            is_interrupted: false,
            sent: Sent::new(ledger.sent(), self.load.figures()),
            groups: Group::ALL
                .map(|group| (group, ledger.summary(group)))
                .into(),
            missing: Vec::new(),
            wrong: ledger.wrong().clone(),
            examples: ledger.examples().to_vec(),
            starts: self.starts.clone(),
            changes: self.members.changes(),
            lateness: self.members.lateness(),
            memory_kib: self.memory.last_kib(),
            growth: self.memory.growth(),
            stalls: self.log.stalls.clone(),
            hiccup_seconds: self.hiccups.seconds_with(10),
            panics: self.log.panics.clone(),
            stop_exit_code: None,
        }
    }

    /// Everybody leaves in order, and the broker is stopped as an operator would.
    async fn end(mut self, is_interrupted: bool) -> Result<Report> {
        self.look()?;
        let mut report = self.report();
        report.is_interrupted = is_interrupted;
        if is_interrupted {
            return Ok(report);
        }
        let ledger = self.ledger.clone();
        let missing = |group: Group| {
            let missing = lock(&ledger).missing(group);
            missing.into_iter().map(move |one| (group, one))
        };
        report.missing = Group::ALL.into_iter().flat_map(missing).collect();
        tokio::join!(self.members.shutdown(), self.load.shutdown());
        report.stop_exit_code = self.broker.stop()?;
        self.log.read(&self.hiccups, self.waits.recent_ms());
        report.panics = self.log.panics;
        Ok(report)
    }
}

/// The number of queues has to stay: keys are sent to queues by it.
async fn make_topics(name_server: &str) -> Result<()> {
    let admin = Admin::new(name_server).map_err(Error::client("finding the broker"))?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        match try_make_topics(&admin).await {
            Ok(()) => return Ok(()),
            // The name server may not know the broker yet.
            Err(_) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            Err(error) => return Err(Error::client("making topics")(error)),
        }
    }
}

async fn try_make_topics(admin: &Admin) -> client::Result<()> {
    let streams = Stream::FREE.into_iter().chain([Stream::Ordered]);
    let masters = admin.masters(None).await?;
    for stream in streams {
        for broker in &masters {
            let wanted = NewTopic::new(stream.topic()).queues(QUEUES);
            admin.create_topic(&broker.address, &wanted).await?;
        }
        admin.route(stream.topic()).await?;
    }
    Ok(())
}
