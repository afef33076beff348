//! `fuzz`: broken frames against a living broker and name server while a load runs on other connections. The servers
//! must live, answer, keep their memory, and the load must not notice.

mod frames;
mod mutate;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Display, Formatter};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use serde::Serialize;

use self::frames::Role;
use self::mutate::Depth;
use crate::commands::plan;
use crate::control::{Control, resolve};
use crate::error::{Error, Result};
use crate::load::{Live, Plan};
use crate::options::{Sending, Target, Topics, Window};
use crate::process;
use crate::progress::{self, bar};
use crate::report::{Figures, write_json};
use crate::wire::Reply;

#[derive(Args)]
pub struct Fuzz {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    topics: Topics,
    /// The name server's process, if it is not the broker's
    #[arg(long)]
    namesrv_pid: Option<u32>,
    /// Broken frames to send in all
    #[arg(long, short = 'n', default_value_t = 1_000_000)]
    frames: u64,
    /// Connections that send them
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    attackers: u16,
    /// Printed, so that a run can be repeated
    #[arg(long)]
    seed: Option<u64>,
    /// Frames a second at most
    #[arg(long, default_value_t = 25_000.0)]
    frame_rate: f64,
    /// Messages a second that are sent meanwhile
    #[arg(long, default_value_t = 2_000.0)]
    load_rate: f64,
    /// No message of the load may take longer than this
    #[arg(long, default_value_t = 1_000)]
    stall_ms: u64,
    /// How much anonymous memory may grow from a fifth of the way to the end
    #[arg(long, default_value_t = 32)]
    growth_mib: u64,
}

#[derive(Serialize)]
struct Report {
    seed: u64,
    frames: u64,
    seconds: f64,
    connections_opened: u64,
    /// Answers to broken and unbroken frames, by response code.
    answers: BTreeMap<i32, u64>,
    load: Option<Figures>,
    memory: Vec<Growth>,
    wrong: Vec<String>,
}

#[derive(Serialize)]
struct Growth {
    pid: u32,
    /// At a fifth of the way, and some time after the last frame.
    early_mib: f64,
    late_mib: f64,
}

/// Time for the servers to see the last connections closed.
const REST: Duration = Duration::from_secs(2);
/// A broken frame is followed by others on the same connection, unless it makes them unreadable.
const FRAMES_A_CONNECTION_MAX: u64 = 200;
const FRAMES_A_WRITE: u64 = 16;
/// How long a spent connection stays for its last answers, and how many may.
const LEAVE_AFTER: Duration = Duration::from_millis(200);
const LEAVING_MAX: usize = 512;
const PACE_STEP: Duration = Duration::from_millis(1);
/// A server that takes nothing for this long is stuck.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

pub fn run(command: Fuzz) -> Result<()> {
    let seed = command.seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("seed {seed}");
    let broker = command.target.broker()?;
    let namesrv = match command
        .target
        .namesrv
        .as_deref()
        .and_then(|list| list.split(';').next())
    {
        Some(address) => Some(resolve(address)?),
        None => None,
    };
    let mut control = Control::connect(broker)?;
    command.topics.prepare(&command.target, &mut control)?;
    control.create_topic(frames::TOPIC, frames::QUEUES)?;

    let live = Arc::new(Live::default());
    let load = progress::start(load_plan(&command, broker), live.clone())?;
    let mut attack = Attack::new(&command, seed, broker, namesrv);
    let started = Instant::now();
    let early = attack
        .send(command.frames / 5, "fuzz")
        .and_then(|()| memories(&command));
    let outcome = early.and_then(|early| {
        attack.send(command.frames, "fuzz")?;
        attack.close();
        let seconds = started.elapsed().as_secs_f64();
        thread::sleep(REST);
        Ok((early, seconds))
    });
    live.stop.store(true, Ordering::Relaxed);
    let load = progress::join(load);
    let (early, seconds) = outcome?;
    let late = memories(&command)?;

    let mut report = Report {
        seed,
        frames: attack.sent,
        seconds,
        connections_opened: attack.opened,
        answers: attack.answers,
        load: None,
        memory: growth(early, late),
        wrong: Vec::new(),
    };
    report.judge_load(load, &command);
    report.judge_servers(&command, broker, namesrv);
    println!("{report}");
    write_json(command.target.json.as_deref(), &report)?;
    match report.wrong.is_empty() {
        true => Ok(()),
        false => Err(Error::Failed(report.wrong.join("; "))),
    }
}

fn load_plan(command: &Fuzz, broker: SocketAddr) -> Plan {
    let sending = Sending {
        connections: 4,
        depth: 16,
        size: 1024,
        batch: 1,
        rate: Some(command.load_rate),
    };
    let until_stopped = Window {
        duration: 86_400.0,
        warmup: 0.0,
    };
    Plan {
        produce: Some(sending.settings(command.target.encoding)),
        ..plan(
            &command.target,
            broker,
            command.topics.lanes(),
            &until_stopped,
        )
    }
}

fn pids(command: &Fuzz) -> impl Iterator<Item = u32> {
    command.target.pid.into_iter().chain(command.namesrv_pid)
}

fn memories(command: &Fuzz) -> Result<Vec<(u32, f64)>> {
    let memory = |pid| match process::memory(pid) {
        Some(memory) => Ok((pid, memory.anonymous_kib as f64 / 1024.0)),
        None => Err(Error::Failed(format!("process {pid} is gone"))),
    };
    pids(command).map(memory).collect()
}

fn growth(early: Vec<(u32, f64)>, late: Vec<(u32, f64)>) -> Vec<Growth> {
    let both = early.into_iter().zip(late);
    both.map(|((pid, early_mib), (_, late_mib))| Growth {
        pid,
        early_mib,
        late_mib,
    })
    .collect()
}

struct Attack {
    random: fastrand::Rng,
    targets: Vec<Victim>,
    connections: Vec<Option<Attacker>>,
    /// Spent connections that wait for their last answers, oldest first.
    leaving: VecDeque<(Instant, Attacker)>,
    started: Instant,
    frame_rate: f64,
    sent: u64,
    opened: u64,
    answers: BTreeMap<i32, u64>,
}

/// A server with the requests that it understands.
#[derive(Clone, Copy)]
struct Victim {
    address: SocketAddr,
    role: Role,
}

struct Attacker {
    stream: TcpStream,
    target: Victim,
    depth: Depth,
    frames_left: u64,
    input: Vec<u8>,
}

impl Attack {
    fn new(command: &Fuzz, seed: u64, broker: SocketAddr, namesrv: Option<SocketAddr>) -> Attack {
        let broker = Victim {
            address: broker,
            role: Role::Broker,
        };
        let namesrv = namesrv.map(|address| Victim {
            address,
            role: Role::NameServer,
        });
        Attack {
            random: fastrand::Rng::with_seed(seed),
            targets: [broker].into_iter().chain(namesrv).collect(),
            connections: (0..command.attackers).map(|_| None).collect(),
            leaving: VecDeque::new(),
            started: Instant::now(),
            frame_rate: command.frame_rate,
            sent: 0,
            opened: 0,
            answers: BTreeMap::new(),
        }
    }

    /// Goes on until `frames` have left in all.
    fn send(&mut self, frames: u64, title: &str) -> Result<()> {
        let line = bar(title);
        let mut next = 0;
        while self.sent < frames {
            let slot = next % self.connections.len();
            next += 1;
            self.burst(slot)?;
            self.pace();
            if next % 1024 == 0 {
                line.set_message(format!("{} of {frames} frames", self.sent));
                line.tick();
            }
        }
        line.finish_and_clear();
        Ok(())
    }

    /// Waits until the rate allows the next frames, and lets go of the connections that have waited long enough.
    fn pace(&mut self) {
        let due = Duration::from_secs_f64(self.sent as f64 / self.frame_rate);
        let early = due.saturating_sub(self.started.elapsed());
        if early > PACE_STEP {
            thread::sleep(early);
        }
        while let Some((since, attacker)) = self.leaving.front_mut() {
            let open = attacker.read(&mut self.answers);
            if open && since.elapsed() < LEAVE_AFTER && self.leaving.len() < LEAVING_MAX {
                break;
            }
            self.leaving.pop_front();
        }
    }

    fn close(&mut self) {
        thread::sleep(LEAVE_AFTER);
        let spent = self.leaving.iter_mut().map(|(_, attacker)| attacker);
        for attacker in spent.chain(self.connections.iter_mut().flatten()) {
            attacker.read(&mut self.answers);
        }
        self.leaving.clear();
        self.connections.clear();
    }

    /// A few frames on one connection; it is opened if need be and closed when it is spent.
    fn burst(&mut self, slot: usize) -> Result<()> {
        let mut attacker = match self.connections[slot].take() {
            Some(attacker) => attacker,
            None => self.open()?,
        };
        let mut output = Vec::new();
        let mut spent = false;
        let count = self
            .random
            .u64(1..=FRAMES_A_WRITE)
            .min(attacker.frames_left);
        for _ in 0..count {
            let role = attacker.target.role;
            spent |= mutate::append(&mut self.random, role, attacker.depth, &mut output);
            self.sent += 1;
            attacker.frames_left -= 1;
            if spent {
                break;
            }
        }
        let open = attacker.write(&output)? && attacker.read(&mut self.answers);
        if open && !spent && attacker.frames_left > 0 {
            self.connections[slot] = Some(attacker);
        } else if open {
            // Closing at once would take from the server what it has not read yet.
            if self.random.bool() {
                let _ = attacker.stream.shutdown(Shutdown::Write);
            }
            self.leaving.push_back((Instant::now(), attacker));
        }
        Ok(())
    }

    fn open(&mut self) -> Result<Attacker> {
        let target = self.targets[self.random.usize(..self.targets.len())];
        let what = || format!("connecting to {}", target.address);
        let stream =
            TcpStream::connect_timeout(&target.address, WRITE_LIMIT).map_err(Error::io(what()))?;
        // Closing by reset: keeps a million frames from using up the local ports, and servers must bear it.
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))
            .map_err(|error| Error::io("linger")(error.into()))?;
        stream
            .set_nonblocking(true)
            .map_err(Error::io("non-blocking"))?;
        self.opened += 1;
        Ok(Attacker {
            stream,
            target,
            depth: if self.random.bool() {
                Depth::Content
            } else {
                Depth::Bytes
            },
            frames_left: 1 + self.random.u64(..FRAMES_A_CONNECTION_MAX),
            input: Vec::new(),
        })
    }
}

impl Attacker {
    /// False: the server has closed, which is its right.
    fn write(&mut self, mut output: &[u8]) -> Result<bool> {
        while !output.is_empty() {
            match self.stream.write(output) {
                Ok(count) => output = &output[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Full in both directions: a server may stop reading from one that does not read.
                    self.read(&mut BTreeMap::new());
                    if !self.wait_writable()? {
                        return Ok(false);
                    }
                }
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn wait_writable(&self) -> Result<bool> {
        let timeout = Timespec {
            tv_sec: WRITE_LIMIT.as_secs() as i64,
            tv_nsec: 0,
        };
        let mut socket = [PollFd::new(&self.stream, PollFlags::OUT)];
        let ready =
            poll(&mut socket, Some(&timeout)).map_err(|error| Error::io("poll")(error.into()))?;
        if ready == 0 {
            return Err(Error::Failed(format!(
                "{} has taken no byte for {WRITE_LIMIT:?}",
                self.target.address
            )));
        }
        Ok(!socket[0]
            .revents()
            .intersects(PollFlags::ERR | PollFlags::HUP))
    }

    /// Takes what has come and counts the answers; false when the server has closed.
    fn read(&mut self, answers: &mut BTreeMap<i32, u64>) -> bool {
        let mut buffer = [0; 16 << 10];
        let open = loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break false,
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) => break error.kind() == io::ErrorKind::WouldBlock,
            }
        };
        let mut at = 0;
        while let Some(word) = self.input[at..].first_chunk::<4>() {
            let len = u32::from_be_bytes(*word) as usize;
            let Some(frame) = self.input[at + 4..].get(..len) else {
                break;
            };
            let code = Reply::parse(frame).map_or(i32::MIN, |reply| reply.code);
            *answers.entry(code).or_default() += 1;
            at += 4 + len;
        }
        self.input.drain(..at);
        open
    }
}

impl Report {
    fn judge_load(&mut self, load: Result<crate::load::Outcome>, command: &Fuzz) {
        let figures = match load {
            Ok(outcome) => Figures::of(&outcome),
            Err(error) => return self.wrong.push(format!("the load was hurt: {error}")),
        };
        let sent = figures.sent.as_ref().expect("the load sends");
        if sent.refused > 0 {
            self.wrong
                .push(format!("{} sends of the load were refused", sent.refused));
        }
        if sent.latency.max_us > command.stall_ms as f64 * 1e3 {
            self.wrong.push(format!(
                "a send of the load took {:.0} ms",
                sent.latency.max_us / 1e3
            ));
        }
        self.load = Some(figures);
    }

    fn judge_servers(&mut self, command: &Fuzz, broker: SocketAddr, namesrv: Option<SocketAddr>) {
        for growth in &self.memory {
            if growth.late_mib > growth.early_mib + command.growth_mib as f64 {
                self.wrong.push(format!(
                    "process {} grew from {:.0} to {:.0} MiB",
                    growth.pid, growth.early_mib, growth.late_mib
                ));
            }
        }
        let topic = command.topics.names().next().expect("at least one topic");
        if let Err(error) =
            Control::connect(broker).and_then(|mut broker| broker.max_offset(&topic, 0))
        {
            self.wrong
                .push(format!("the broker does not answer: {error}"));
        }
        let Some(namesrv) = namesrv else {
            return;
        };
        match Control::connect(namesrv).and_then(|mut namesrv| namesrv.route(&topic)) {
            Ok(Some(_)) => {}
            Ok(None) => self
                .wrong
                .push("the name server has lost the route of the load".into()),
            Err(error) => self
                .wrong
                .push(format!("the name server does not answer: {error}")),
        }
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        writeln!(
            out,
            "fuzz       {} frames in {:.1} s on {} connections, seed {}",
            self.frames, self.seconds, self.connections_opened, self.seed
        )?;
        let answers: Vec<String> = self
            .answers
            .iter()
            .map(|(code, count)| format!("{code}: {count}"))
            .collect();
        writeln!(out, "answers    by code: {}", answers.join(", "))?;
        for growth in &self.memory {
            writeln!(
                out,
                "memory     process {}: {:.1} MiB anonymous early, {:.1} MiB late",
                growth.pid, growth.early_mib, growth.late_mib
            )?;
        }
        match &self.load {
            Some(load) => write!(out, "{load}"),
            None => write!(out, "load       broken off"),
        }
    }
}
