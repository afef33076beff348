//! The sending half of the generator: one frame per lane laid out beforehand, copied and patched for every request.
//! A connection keeps `depth` requests in flight; in a closed loop an answer makes room for the next request at
//! once, in an open loop requests leave when their time has come.

mod template;
mod transaction;

use std::io;
use std::net::SocketAddr;

pub use self::template::Delay;
use self::template::Template;
use self::transaction::Half;
use super::{Choice, Lane, Latencies, Refusals};
use crate::connection::Connection;
use crate::payload::{BODY_BYTES_MIN, Filler, Stamp};
use crate::wire::{Encoding, OPAQUE_FIRST, Reply, response};

pub struct Settings {
    pub connections: usize,
    pub depth: usize,
    pub body_bytes: usize,
    /// Messages a request; above 1 they travel as one batch.
    pub batch: usize,
    /// Requests a second over all connections; `None`: as fast as answers come.
    pub rate: Option<f64>,
    pub encoding: Encoding,
    /// Further properties, for the first, second, ... message of each batch and then again from the first.
    pub properties: Vec<String>,
    /// The stamp then says when the message is due.
    pub delay: Option<Delay>,
    /// Every message is a transaction; the chosen ones are committed, the others rolled back.
    pub transactions: Option<Choice>,
}

/// Of producers.
const GROUP: &str = "orbit-bench";

impl Settings {
    pub fn one_at_a_time(encoding: Encoding) -> Settings {
        Settings {
            connections: 1,
            depth: 1,
            body_bytes: BODY_BYTES_MIN,
            batch: 1,
            rate: None,
            encoding,
            properties: Vec::new(),
            delay: None,
            transactions: None,
        }
    }
}

/// Where one acknowledged request was stored.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    pub producer: u32,
    pub lane: u32,
    pub sequence: u64,
    pub queue_offset: u64,
}

/// Called with every acknowledged request.
pub type Recorder = Box<dyn FnMut(Ack) + Send>;

/// One stamped message outside of any load; its answer has the opaque given.
pub fn write_single(
    out: &mut Vec<u8>,
    encoding: Encoding,
    lane: &Lane,
    filler: &Filler,
    stamp: Stamp,
    opaque: i32,
) {
    let settings = Settings {
        body_bytes: filler.body_bytes(),
        ..Settings::one_at_a_time(encoding)
    };
    let start = out.len();
    let template = Template::new(lane, filler, &settings);
    out.extend_from_slice(&template.frame);
    template.patch(&mut out[start..], filler, stamp, opaque);
}

#[derive(Clone, Copy)]
struct Slot {
    intended_ns: u64,
    lane: u32,
    sequence: u64,
    /// The half of a transaction is stored, and the producer has decided.
    is_decided: bool,
}

struct Peer {
    connection: Option<Connection>,
    producer: u32,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The next lane; connections start at different ones.
    cursor: usize,
    /// Next sequence number of each lane.
    sequences: Vec<u64>,
}

pub struct Producers {
    peers: Vec<Peer>,
    templates: Vec<Template>,
    filler: Filler,
    settings: Settings,
    topics: Vec<String>,
    /// Halves that were stored just now, by slot.
    halves: Vec<(u32, Half)>,
    /// Open loop only.
    schedule: Option<Schedule>,
    turn: usize,
    pub totals: Totals,
    pub recorder: Option<Recorder>,
}

struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    issued: u64,
}

impl Schedule {
    fn due_ns(&self) -> u64 {
        self.start_ns + (self.issued as f64 * self.interval_ns) as u64
    }
}

#[derive(Default)]
pub struct Totals {
    /// Messages, not requests.
    pub acknowledged: u64,
    /// Those of them that consumers are to see.
    pub to_arrive: u64,
    pub refused: Refusals,
    pub latencies: Latencies,
    pub disconnected: u32,
    /// Sequence numbers that were refused, by producer and lane.
    pub refused_sequences: Vec<(u32, u32, u64)>,
}

impl Producers {
    pub fn connect(
        broker: SocketAddr,
        lanes: &[Lane],
        run: u16,
        start_ns: u64,
        settings: Settings,
    ) -> io::Result<Producers> {
        let single = settings.delay.is_none() && settings.transactions.is_none();
        assert!(
            single || settings.batch == 1,
            "batches are neither late nor transactions"
        );
        let filler = Filler::new(settings.body_bytes);
        let templates = lanes
            .iter()
            .map(|lane| Template::new(lane, &filler, &settings))
            .collect();
        let peers = (0..settings.connections)
            .map(|index| {
                Ok(Peer {
                    connection: Some(Connection::open(broker)?),
                    producer: u32::from(run) << 16 | index as u32,
                    slots: vec![
                        Slot {
                            intended_ns: 0,
                            lane: 0,
                            sequence: 0,
                            is_decided: false,
                        };
                        settings.depth
                    ],
                    free: (0..settings.depth as u32).rev().collect(),
                    cursor: index,
                    sequences: vec![0; lanes.len()],
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Producers {
            peers,
            templates,
            filler,
            topics: lanes.iter().map(|lane| lane.topic.clone()).collect(),
            halves: Vec::new(),
            schedule: settings.rate.map(|rate| Schedule {
                start_ns,
                interval_ns: 1e9 / rate,
                issued: 0,
            }),
            settings,
            turn: 0,
            totals: Totals::default(),
            recorder: None,
        })
    }

    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.peers
            .iter()
            .filter_map(|peer| peer.connection.as_ref())
    }

    pub fn in_flight(&self) -> usize {
        self.peers
            .iter()
            .filter(|peer| peer.connection.is_some())
            .map(|peer| peer.slots.len() - peer.free.len())
            .sum()
    }

    pub fn all_disconnected(&self) -> bool {
        self.peers.iter().all(|peer| peer.connection.is_none())
    }

    /// How many requests of each producer and lane have left, answered or not.
    pub fn sent(&self) -> impl Iterator<Item = (u32, u32, u64)> {
        self.peers.iter().flat_map(|peer| {
            let lanes = peer.sequences.iter().enumerate();
            lanes.map(|(lane, &next)| (peer.producer, lane as u32, next))
        })
    }

    /// Closed loop: fills every connection for the first time.
    pub fn prime(&mut self, now_ns: u64) {
        if self.schedule.is_none() {
            for index in 0..self.peers.len() {
                self.refill(index, now_ns);
            }
        }
    }

    /// Open loop: sends what is due and says when the next request is.
    pub fn issue_due(&mut self, now_ns: u64) -> Option<u64> {
        let schedule = self.schedule.as_mut()?;
        let count = self.peers.len();
        let mut issued = false;
        let mut full = 0;
        while schedule.due_ns() <= now_ns && full < count {
            let peer = &mut self.peers[self.turn];
            self.turn = (self.turn + 1) % count;
            if peer.connection.is_some() && !peer.free.is_empty() {
                peer.issue(
                    &self.templates,
                    &self.filler,
                    &self.settings,
                    schedule.due_ns(),
                );
                schedule.issued += 1;
                issued = true;
                full = 0;
            } else {
                full += 1;
            }
        }
        let due_ns = schedule.due_ns();
        if issued {
            for index in 0..count {
                self.flush(index);
            }
        }
        // With every connection full only an answer helps, not the clock.
        (full < count).then_some(due_ns)
    }

    /// Open loop: the window is over. Sends what is due since the last look, as far as the connections have room, and says how
    /// many requests have not left: the server did not keep up with them.
    pub fn end(&mut self, now_ns: u64) -> u64 {
        self.issue_due(now_ns);
        self.behind(now_ns)
    }

    /// How many requests should have left by now and have not.
    fn behind(&self, now_ns: u64) -> u64 {
        self.schedule.as_ref().map_or(0, |schedule| {
            let due =
                (now_ns.saturating_sub(schedule.start_ns) as f64 / schedule.interval_ns) as u64;
            due.saturating_sub(schedule.issued)
        })
    }

    /// The socket of connection `index` is readable or writable.
    pub fn ready(&mut self, index: usize, now_ns: u64, sending: bool) {
        let Producers {
            peers,
            totals,
            recorder,
            settings,
            halves,
            topics,
            ..
        } = self;
        let batch = settings.batch as u64;
        let peer = &mut peers[index];
        let Some(connection) = peer.connection.as_mut() else {
            return;
        };
        let (slots, free, producer) = (&mut peer.slots, &mut peer.free, peer.producer);
        let result = connection.read(|frame| {
            let Some(reply) = Reply::parse(frame) else {
                totals.refused.add(-1, "an answer that is not a frame");
                return;
            };
            // A notice from the broker has an opaque of its own numbering.
            let Some(slot) = reply.opaque.checked_sub(OPAQUE_FIRST).and_then(|slot| {
                slots
                    .get(usize::try_from(slot).ok()?)
                    .map(|found| (slot as u32, *found))
            }) else {
                return;
            };
            let (number, slot) = slot;
            let is_stored = response::is_stored(reply.code);
            if is_stored && settings.transactions.is_some() && !slot.is_decided {
                match Half::of(&reply) {
                    Some(half) => halves.push((number, half)),
                    None => totals
                        .refused
                        .add(-1, "an answer without the half message's place"),
                }
                return;
            }
            free.push(number);
            totals.latencies.record(slot.intended_ns, now_ns);
            if is_stored {
                totals.acknowledged += batch;
                let chosen = settings.transactions.unwrap_or(Choice::ALL);
                totals.to_arrive +=
                    chosen.count(slot.sequence + batch) - chosen.count(slot.sequence);
                // A time-out of the flush says that the message may yet be lost.
                if let (response::SUCCESS, Some(recorder), Some(queue_offset)) =
                    (reply.code, recorder.as_mut(), recorder_offset(&reply))
                {
                    recorder(Ack {
                        producer,
                        lane: slot.lane,
                        sequence: slot.sequence,
                        queue_offset,
                    });
                }
            } else {
                totals.refused.add(reply.code, &reply.remark());
                for sequence in slot.sequence..slot.sequence + batch {
                    totals
                        .refused_sequences
                        .push((producer, slot.lane, sequence));
                }
            }
        });
        for (number, half) in halves.drain(..) {
            let slot = &mut slots[number as usize];
            slot.is_decided = true;
            let stamp = Stamp {
                producer,
                lane: slot.lane,
                sequence: slot.sequence,
                intended_ns: slot.intended_ns,
            };
            let topic = &topics[slot.lane as usize];
            let opaque = OPAQUE_FIRST + number as i32;
            transaction::write_decision(connection.output(), settings, topic, &stamp, half, opaque);
        }
        if result.is_err() {
            peer.connection = None;
            totals.disconnected += 1;
        } else if sending && self.schedule.is_none() {
            self.refill(index, now_ns);
        } else {
            self.flush(index);
        }
    }

    fn refill(&mut self, index: usize, now_ns: u64) {
        let peer = &mut self.peers[index];
        while !peer.free.is_empty() && peer.connection.is_some() {
            peer.issue(&self.templates, &self.filler, &self.settings, now_ns);
        }
        self.flush(index);
    }

    fn flush(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        if let Some(connection) = peer.connection.as_mut()
            && connection.flush().is_err()
        {
            peer.connection = None;
            self.totals.disconnected += 1;
        }
    }
}

fn recorder_offset(reply: &Reply) -> Option<u64> {
    reply.number("queueOffset")
}

impl Peer {
    /// Lays the next request into the output; a free slot and a connection must be there.
    fn issue(
        &mut self,
        templates: &[Template],
        filler: &Filler,
        settings: &Settings,
        intended_ns: u64,
    ) {
        let number = self.free.pop().expect("the caller has looked");
        let connection = self.connection.as_mut().expect("the caller has looked");
        let lane = self.cursor % templates.len();
        self.cursor = lane + 1;
        let template = &templates[lane];
        let sequence = self.sequences[lane];
        self.sequences[lane] += settings.batch as u64;
        self.slots[number as usize] = Slot {
            intended_ns,
            lane: lane as u32,
            sequence,
            is_decided: false,
        };
        let output = connection.output();
        let start = output.len();
        output.extend_from_slice(&template.frame);
        let frame = &mut output[start..];
        let first = Stamp {
            producer: self.producer,
            lane: lane as u32,
            sequence,
            intended_ns: settings
                .delay
                .map_or(intended_ns, |delay| delay.due_ns(intended_ns, sequence)),
        };
        template.patch(frame, filler, first, OPAQUE_FIRST + number as i32);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_open_loop_counts_from_the_intended_start() {
        let mut schedule = Schedule {
            start_ns: 1_000,
            interval_ns: 1e9 / 3.0,
            issued: 0,
        };
        assert_eq!(schedule.due_ns(), 1_000);
        schedule.issued = 3;
        assert_eq!(schedule.due_ns(), 1_000_001_000);
    }

    /// A thousand requests a second, up to four at once on each.
    fn two_connections() -> (TcpListener, Producers) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let broker = listener.local_addr().expect("it is bound");
        let settings = Settings {
            connections: 2,
            depth: 4,
            body_bytes: 64,
            rate: Some(1_000.0),
            ..Settings::one_at_a_time(Encoding::Json)
        };
        let lane = Lane {
            topic: "t".into(),
            queue: 0,
        };
        let producers = Producers::connect(broker, &[lane], 1, 0, settings).expect("it listens");
        (listener, producers)
    }

    #[test]
    fn only_what_finds_no_room_is_behind_at_the_end() {
        let (_listener, mut producers) = two_connections();
        producers.issue_due(1_000_000);
        assert_eq!(producers.end(5_000_000), 0, "there is room for six");
        assert_eq!(producers.end(20_000_000), 12, "and for two more");
    }

    #[test]
    fn what_is_issued_leaves_at_once_even_if_every_connection_had_its_turn() {
        let (listener, mut producers) = two_connections();
        assert_eq!(producers.issue_due(1_000_000), Some(2_000_000));
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().expect("two have connected");
            stream
                .set_read_timeout(Some(Duration::from_secs(5)))
                .expect("a socket");
            let mut word = [0; 4];
            stream.read_exact(&mut word).expect("a frame has left");
        }
    }
}
