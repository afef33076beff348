//! The sending half of the generator: one frame per lane laid out beforehand, copied and patched for every request.
//! A connection keeps `depth` requests in flight; in a closed loop an answer makes room for the next request at
//! once, in an open loop requests leave when their time has come.

use std::io;
use std::net::SocketAddr;

use memchr::memmem;

use super::{Lane, Latencies, Refusals};
use crate::connection::Connection;
use crate::payload::{Filler, Stamp};
use crate::record;
use crate::wire::{self, Encoding, Layout, OPAQUE_FIRST, Reply, request, response};

pub struct Settings {
    pub connections: usize,
    pub depth: usize,
    pub body_bytes: usize,
    /// Messages a request; above 1 they travel as one batch.
    pub batch: usize,
    /// Requests a second over all connections; `None`: as fast as answers come.
    pub rate: Option<f64>,
    pub encoding: Encoding,
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

const UNIQUE_HOLE: &str = "0000000000000000";
/// A unique key is 32 hex digits: the first half names the run, the second is the hole.
const UNIQUE_PREFIX: &str = "0B1700000000BE9C";

/// One lane's request with the places that change.
struct Template {
    frame: Vec<u8>,
    layout: Layout,
    /// Where the changing half of the unique key lies; a batch has one per message.
    unique_at: Vec<usize>,
    /// Where each body begins.
    body_at: Vec<usize>,
}

impl Template {
    fn new(lane: &Lane, filler: &Filler, settings: &Settings) -> Template {
        let queue = lane.queue.to_string();
        let properties =
            format!("UNIQ_KEY\u{1}{UNIQUE_PREFIX}{UNIQUE_HOLE}\u{2}WAIT\u{1}true\u{2}");
        let batched = settings.batch > 1;
        let (code, body, outer) = if batched {
            let body = record::batch(vec![&filler.unstamped()[..]; settings.batch], &properties);
            (request::SEND_BATCH_MESSAGE, body, "WAIT\u{1}true\u{2}")
        } else {
            (
                request::SEND_MESSAGE_V2,
                filler.unstamped(),
                properties.as_str(),
            )
        };
        let mut fields = vec![
            ("a", "orbit-bench"),
            ("b", lane.topic.as_str()),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", queue.as_str()),
            ("f", "0"),
            ("g", "1700000000000"),
            ("h", "0"),
            ("i", outer),
            ("j", "0"),
            ("k", "false"),
        ];
        fields.push(("m", if batched { "true" } else { "false" }));
        let mut frame = Vec::new();
        let layout = wire::write_request(
            &mut frame,
            settings.encoding,
            code,
            OPAQUE_FIRST,
            &fields,
            &body,
        );
        let unique_at = memmem::find_iter(&frame, UNIQUE_PREFIX.as_bytes())
            .map(|at| at + UNIQUE_PREFIX.len())
            .collect();
        let stride = body.len() / settings.batch;
        let first = layout.body_at + if batched { record::INNER_BODY_AT } else { 0 };
        let body_at = (0..settings.batch)
            .map(|index| first + index * stride)
            .collect();
        Template {
            frame,
            layout,
            unique_at,
            body_at,
        }
    }

    /// Fills the holes of a copy; further messages of a batch count on from the first.
    fn patch(&self, frame: &mut [u8], filler: &Filler, first: Stamp, opaque: i32) {
        wire::patch_opaque(frame, &self.layout, opaque);
        for (index, (&body_at, &unique_at)) in self.body_at.iter().zip(&self.unique_at).enumerate()
        {
            let stamp = Stamp {
                sequence: first.sequence + index as u64,
                ..first
            };
            filler.stamp(&mut frame[body_at..body_at + filler.body_bytes()], stamp);
            let unique =
                u64::from(stamp.producer) << 40 ^ u64::from(stamp.lane) << 32 ^ stamp.sequence;
            write_hex(&mut frame[unique_at..], unique);
        }
    }
}

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
        connections: 1,
        depth: 1,
        body_bytes: filler.body_bytes(),
        batch: 1,
        rate: None,
        encoding,
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
    batch: u64,
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
        settings: &Settings,
    ) -> io::Result<Producers> {
        let filler = Filler::new(settings.body_bytes);
        let templates = lanes
            .iter()
            .map(|lane| Template::new(lane, &filler, settings))
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
                            sequence: 0
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
            batch: settings.batch as u64,
            schedule: settings.rate.map(|rate| Schedule {
                start_ns,
                interval_ns: 1e9 / rate,
                issued: 0,
            }),
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
                peer.issue(&self.templates, &self.filler, self.batch, schedule.due_ns());
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

    /// How many requests should have left by now and have not.
    pub fn behind(&self, now_ns: u64) -> u64 {
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
            batch,
            ..
        } = self;
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
            free.push(number);
            totals.latencies.record(slot.intended_ns, now_ns);
            if response::is_stored(reply.code) {
                totals.acknowledged += *batch;
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
                for sequence in slot.sequence..slot.sequence + *batch {
                    totals
                        .refused_sequences
                        .push((producer, slot.lane, sequence));
                }
            }
        });
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
            peer.issue(&self.templates, &self.filler, self.batch, now_ns);
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
    fn issue(&mut self, templates: &[Template], filler: &Filler, batch: u64, intended_ns: u64) {
        let number = self.free.pop().expect("the caller has looked");
        let connection = self.connection.as_mut().expect("the caller has looked");
        let lane = self.cursor % templates.len();
        self.cursor = lane + 1;
        let template = &templates[lane];
        let sequence = self.sequences[lane];
        self.sequences[lane] += batch;
        self.slots[number as usize] = Slot {
            intended_ns,
            lane: lane as u32,
            sequence,
        };
        let output = connection.output();
        let start = output.len();
        output.extend_from_slice(&template.frame);
        let frame = &mut output[start..];
        let first = Stamp {
            producer: self.producer,
            lane: lane as u32,
            sequence,
            intended_ns,
        };
        template.patch(frame, filler, first, OPAQUE_FIRST + number as i32);
    }
}

fn write_hex(out: &mut [u8], mut value: u64) {
    for digit in out[..16].iter_mut().rev() {
        *digit = b"0123456789ABCDEF"[(value & 15) as usize];
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::payload;

    fn template(batch: usize, encoding: Encoding) -> (Template, Filler) {
        let filler = Filler::new(64);
        let settings = Settings {
            connections: 1,
            depth: 1,
            body_bytes: 64,
            batch,
            rate: None,
            encoding,
        };
        let lane = Lane {
            topic: "t".into(),
            queue: 3,
        };
        (Template::new(&lane, &filler, &settings), filler)
    }

    #[test]
    fn holes_are_found_for_single_and_batched_messages() {
        for encoding in [Encoding::Json, Encoding::Binary] {
            for batch in [1, 3] {
                let (mut template, filler) = template(batch, encoding);
                assert_eq!(
                    (template.unique_at.len(), template.body_at.len()),
                    (batch, batch)
                );
                for at in template.body_at.clone() {
                    let stamp = Stamp {
                        producer: 1,
                        lane: 2,
                        sequence: at as u64,
                        intended_ns: 4,
                    };
                    let body = &mut template.frame[at..at + 64];
                    filler.stamp(body, stamp);
                    assert_eq!(payload::open(body), Some(stamp));
                }
                assert!(
                    template
                        .unique_at
                        .iter()
                        .all(|&at| &template.frame[at..at + 16] == UNIQUE_HOLE.as_bytes())
                );
            }
        }
    }

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

    #[test]
    fn what_is_issued_leaves_at_once_even_if_every_connection_had_its_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let broker = listener.local_addr().expect("it is bound");
        let settings = Settings {
            connections: 2,
            depth: 4,
            body_bytes: 64,
            batch: 1,
            rate: Some(1_000.0),
            encoding: Encoding::Json,
        };
        let lane = Lane {
            topic: "t".into(),
            queue: 0,
        };
        let mut producers =
            Producers::connect(broker, &[lane], 1, 0, &settings).expect("it listens");
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
