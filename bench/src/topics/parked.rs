//! Long polls that wait: each on a queue of its own. Measures what they cost while nothing happens, then sends one
//! message to each queue, one after the other, and times the way from the send to the answer of the parked pull.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use serde::Serialize;

use super::{Topics, empty_histogram};
use crate::connection::Connection;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::idle::{Idle, watch_idle};
use crate::load::{Choice, Lane, consume, produce};
use crate::payload::{Filler, Stamp};
use crate::report::Latency;
use crate::wire::{OPAQUE_FIRST, Reply, response};

#[derive(Serialize)]
pub struct Parked {
    long_polls: u32,
    connections: u16,
    pub idle: Option<Idle>,
    pub wake_ups: Latency,
    /// Long polls that were answered without their message.
    pub answered_early: u64,
    pub never_woken: u64,
}

/// How long one wake-up may take before it counts as lost.
const WAKE_LIMIT: Duration = Duration::from_secs(5);
/// Time for the broker to read and park all pulls.
const PARK_TIME: Duration = Duration::from_secs(2);
const BODY_BYTES: usize = 128;

/// Pulls are numbered from 0, the message under way has the number above all of them.
struct Parking {
    pulls: Vec<Connection>,
    sender: Connection,
    answered: Vec<bool>,
    answered_early: u64,
}

pub fn run(
    command: &Topics,
    broker: SocketAddr,
    control: &mut Control,
    names: &[String],
) -> Result<Parked> {
    let lanes = lanes(command, names)?;
    let mut parking = park(command, broker, control, &lanes)?;
    thread::sleep(PARK_TIME);
    let idle = command
        .target
        .pid
        .and_then(|pid| watch_idle(pid, command.idle));
    parking.read(Duration::ZERO)?;
    parking.answered_early = parking
        .answered
        .iter()
        .filter(|answered| **answered)
        .count() as u64;

    let filler = Filler::new(BODY_BYTES);
    let mut order: Vec<usize> = (0..lanes.len()).collect();
    fastrand::Rng::with_seed(u64::from(command.parked)).shuffle(&mut order);
    let mut latencies = empty_histogram();
    let mut never_woken = 0;
    for index in order
        .into_iter()
        .filter(|&index| !parking.answered[index])
        .collect::<Vec<_>>()
    {
        match parking.wake(&lanes[index], index, &filler, command)? {
            Some(taken) => latencies.saturating_record(taken.as_nanos() as u64),
            None => never_woken += 1,
        }
    }
    Ok(Parked {
        long_polls: command.parked,
        connections: command.connections,
        idle,
        wake_ups: Latency::of(&latencies),
        answered_early: parking.answered_early,
        never_woken,
    })
}

fn lanes(command: &Topics, names: &[String]) -> Result<Vec<Lane>> {
    let of_queue = |queue| {
        names.iter().map(move |topic| Lane {
            topic: topic.clone(),
            queue,
        })
    };
    let lanes: Vec<Lane> = (0..command.queues)
        .flat_map(of_queue)
        .take(command.parked as usize)
        .collect();
    match lanes.len() == command.parked as usize {
        true => Ok(lanes),
        false => Err(Error::Failed("more long polls than queues".into())),
    }
}

fn park(
    command: &Topics,
    broker: SocketAddr,
    control: &mut Control,
    lanes: &[Lane],
) -> Result<Parking> {
    let open = || Connection::open(broker).map_err(Error::io(format!("connecting to {broker}")));
    let mut pulls = (0..command.connections)
        .map(|_| open())
        .collect::<Result<Vec<_>>>()?;
    let settings = consume::Settings {
        connections: pulls.len(),
        messages: 32,
        hold_ms: command.hold * 1_000,
        group: "orbit-bench".into(),
        encoding: command.target.encoding,
        choice: Choice::ALL,
        subscription: consume::Subscription::Everything,
        commits: false,
    };
    for (index, lane) in lanes.iter().enumerate() {
        let next = control.max_offset(&lane.topic, lane.queue)?;
        let connection = &mut pulls[index % usize::from(command.connections)];
        consume::write_pull(connection.output(), lane, next, index, &settings);
        connection.flush().map_err(Error::io("parking a pull"))?;
    }
    Ok(Parking {
        pulls,
        sender: open()?,
        answered: vec![false; lanes.len()],
        answered_early: 0,
    })
}

impl Parking {
    /// Sends a message to the queue and waits for both answers; `None` if the pull was not woken.
    fn wake(
        &mut self,
        lane: &Lane,
        index: usize,
        filler: &Filler,
        command: &Topics,
    ) -> Result<Option<Duration>> {
        let number = self.answered.len();
        let stamp = Stamp {
            producer: 0,
            lane: index as u32,
            sequence: 0,
            intended_ns: 0,
        };
        let opaque = OPAQUE_FIRST + number as i32;
        let output = self.sender.output();
        produce::write_single(output, command.target.encoding, lane, filler, stamp, opaque);
        let started = Instant::now();
        self.sender
            .flush()
            .map_err(Error::io("sending a message"))?;
        let (mut sent, mut woken) = (false, None);
        while !sent || woken.is_none() {
            if started.elapsed() > WAKE_LIMIT {
                break;
            }
            sent |= self.read(WAKE_LIMIT)?;
            if self.answered[index] && woken.is_none() {
                woken = Some(started.elapsed());
            }
        }
        Ok(woken)
    }

    /// Waits for answers and takes them; true if the sender's was among them.
    fn read(&mut self, wait: Duration) -> Result<bool> {
        let timeout = Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let all = self.pulls.iter().chain([&self.sender]);
        let mut sockets: Vec<PollFd> = all
            .map(|open| PollFd::new(&open.stream, PollFlags::IN))
            .collect();
        poll(&mut sockets, Some(&timeout)).map_err(|error| Error::io("poll")(error.into()))?;
        let readable: Vec<bool> = sockets
            .iter()
            .map(|socket| !socket.revents().is_empty())
            .collect();
        let (mut sent, mut refused) = (false, None);
        let answered = &mut self.answered;
        for (connection, _) in self
            .pulls
            .iter_mut()
            .chain([&mut self.sender])
            .zip(readable)
            .filter(|(_, readable)| *readable)
        {
            let taken = connection.read(|frame| {
                let Some(reply) = Reply::parse(frame) else {
                    return;
                };
                let number = reply.opaque.wrapping_sub(OPAQUE_FIRST) as usize;
                if number == answered.len() {
                    sent = true;
                    if !response::is_stored(reply.code) {
                        refused = Some((reply.code, reply.remark()));
                    }
                } else if let Some(answered) = answered.get_mut(number) {
                    *answered = true;
                }
            });
            taken.map_err(Error::io("reading answers"))?;
        }
        match refused {
            Some((code, remark)) => Err(Error::Refused {
                what: "sending a message".into(),
                code,
                remark,
            }),
            None => Ok(sent),
        }
    }
}

impl Display for Parked {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        write!(
            out,
            "parked     {} long polls on {} connections",
            self.long_polls, self.connections
        )?;
        if let Some(idle) = &self.idle {
            write!(out, "\n  idle     {idle}")?;
        }
        write!(out, "\n  woken    {}", self.wake_ups)?;
        if self.answered_early + self.never_woken > 0 {
            write!(
                out,
                "\n  {} were answered before their message, {} were never woken",
                self.answered_early, self.never_woken
            )?;
        }
        Ok(())
    }
}
