//! The reading half of the generator: one pull in flight for every lane, long-polling, spread over a few
//! connections. Every record is walked byte by byte and its body checked and entered into the ledger.

use std::io;
use std::net::SocketAddr;

use super::{Choice, Lane, Latencies, Refusals};
use crate::connection::Connection;
use crate::ledger::Ledger;
use crate::payload::{self, Stamp};
use crate::record;
use crate::wire::{self, Encoding, OPAQUE_FIRST, Reply, request, response};

pub struct Settings {
    pub connections: usize,
    /// Messages asked for in one pull.
    pub messages: u32,
    /// How long the broker may hold a pull that finds nothing.
    pub hold_ms: u64,
    pub group: String,
    pub encoding: Encoding,
    /// Which messages are to come; anything else counts as damage.
    pub choice: Choice,
    pub subscription: Subscription,
    /// Every pull says how far the group has come.
    pub commits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// To everything, said with every pull.
    Everything,
    /// As a member of the group has said in its heartbeat.
    OfMembers,
}

/// In a pull's flags.
const COMMIT: u8 = 1;
/// The broker holds the pull when there is nothing.
const HOLD: u8 = 2;
const SUBSCRIBED: u8 = 4;

const RETRY_REFUSED_NS: u64 = 10_000_000;

struct Reader {
    lane: Lane,
    connection: usize,
    next: u64,
    /// End of the queue as the last answer told it.
    end: Option<u64>,
}

pub struct Consumers {
    connections: Vec<Option<Connection>>,
    readers: Vec<Reader>,
    settings: Settings,
    /// Readers whose answer has come and whose next pull has not left.
    idle: Vec<usize>,
    /// Readers whose pull was refused; they ask again a little later.
    refused: Vec<usize>,
    retry_at_ns: u64,
    pub ledger: Ledger,
    pub totals: Totals,
    pub observer: Option<Observer>,
}

/// Called with every whole message and the number of its lane.
pub type Observer = Box<dyn FnMut(usize, u64, &Stamp) + Send>;

#[derive(Default)]
pub struct Totals {
    pub bytes: u64,
    pub pulls: u64,
    pub latencies: Latencies,
    pub refused: Refusals,
    pub disconnected: u32,
}

impl Consumers {
    /// `starts` holds the first offset of every lane.
    pub fn connect(
        broker: SocketAddr,
        lanes: &[Lane],
        starts: &[u64],
        settings: Settings,
    ) -> io::Result<Consumers> {
        assert_eq!(lanes.len(), starts.len());
        let connections = (0..settings.connections)
            .map(|_| Connection::open(broker).map(Some))
            .collect::<io::Result<Vec<_>>>()?;
        let readers = lanes
            .iter()
            .zip(starts)
            .enumerate()
            .map(|(index, (lane, &next))| Reader {
                lane: lane.clone(),
                connection: index % settings.connections,
                next,
                end: None,
            });
        Ok(Consumers {
            readers: readers.collect(),
            idle: (0..lanes.len()).collect(),
            refused: Vec::new(),
            retry_at_ns: 0,
            connections,
            settings,
            ledger: Ledger::default(),
            totals: Totals::default(),
            observer: None,
        })
    }

    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().flatten()
    }

    /// Every queue has been read up to the end that the broker last told.
    pub fn drained(&self) -> bool {
        self.readers
            .iter()
            .all(|reader| reader.end.is_some_and(|end| reader.next >= end))
    }

    pub fn retry_refused(&mut self, now_ns: u64) {
        if now_ns >= self.retry_at_ns && !self.refused.is_empty() {
            self.idle.append(&mut self.refused);
            self.retry_at_ns = now_ns + RETRY_REFUSED_NS;
            self.pull();
        }
    }

    /// Sends the pulls that wait to be sent.
    pub fn pull(&mut self) {
        for index in self.idle.drain(..) {
            let reader = &self.readers[index];
            if let Some(connection) = self.connections[reader.connection].as_mut() {
                write_pull(
                    connection.output(),
                    &reader.lane,
                    reader.next,
                    index,
                    &self.settings,
                );
            }
        }
        for connection in &mut self.connections {
            if connection
                .as_mut()
                .is_some_and(|open| open.flush().is_err())
            {
                *connection = None;
                self.totals.disconnected += 1;
            }
        }
    }

    /// The socket of connection `index` is readable or writable.
    pub fn ready(&mut self, index: usize, now_ns: u64) {
        let Consumers {
            connections,
            readers,
            idle,
            refused,
            ledger,
            totals,
            observer,
            settings,
            ..
        } = self;
        let choice = settings.choice;
        let Some(connection) = connections[index].as_mut() else {
            return;
        };
        let result = connection.read(|frame| {
            let Some(reply) = Reply::parse(frame) else {
                totals.refused.add(-1, "an answer that is not a frame");
                return;
            };
            let Some(number) = reply
                .opaque
                .checked_sub(OPAQUE_FIRST)
                .and_then(|number| usize::try_from(number).ok())
                .filter(|&number| number < readers.len())
            else {
                return;
            };
            let mut see = |seen: Seen| match seen {
                Seen::Whole(queue_offset, stamp) => {
                    match choice.rank(stamp.sequence) {
                        Some(sequence) => ledger.saw(&Stamp { sequence, ..stamp }),
                        None => ledger.saw_damage(),
                    }
                    if let Some(observer) = observer.as_mut() {
                        observer(number, queue_offset, &stamp);
                    }
                }
                Seen::Damaged => ledger.saw_damage(),
            };
            let answered = take(
                &mut readers[number],
                choice,
                &reply,
                now_ns,
                &mut see,
                totals,
            );
            let waiting = if answered { &mut *idle } else { &mut *refused };
            waiting.push(number);
        });
        if result.is_err() {
            connections[index] = None;
            totals.disconnected += 1;
        }
        self.pull();
    }
}

enum Seen {
    /// At this queue offset.
    Whole(u64, Stamp),
    Damaged,
}

/// False: the broker refused the pull.
fn take(
    reader: &mut Reader,
    choice: Choice,
    reply: &Reply,
    now_ns: u64,
    see: &mut impl FnMut(Seen),
    totals: &mut Totals,
) -> bool {
    totals.pulls += 1;
    match reply.code {
        response::SUCCESS => {
            let next = reply.number("nextBeginOffset");
            totals.bytes += reply.body.len() as u64;
            for record in record::records(reply.body) {
                let Ok(record) = record else {
                    see(Seen::Damaged);
                    break;
                };
                let in_place = follows(choice, record.queue_offset, reader.next)
                    && record.queue_id == reader.lane.queue
                    && record.body_crc == crc32fast::hash(record.body) & 0x7FFF_FFFF;
                match payload::open(record.body) {
                    Some(stamp) if in_place => {
                        see(Seen::Whole(record.queue_offset, stamp));
                        totals.latencies.record(stamp.intended_ns, now_ns);
                    }
                    _ => see(Seen::Damaged),
                }
                reader.next = record.queue_offset + 1;
            }
            match next {
                Some(next) if follows(choice, next, reader.next) => reader.next = next,
                _ => see(Seen::Damaged),
            }
            reader.end = reply.number("maxOffset");
        }
        response::PULL_NOT_FOUND
        | response::PULL_RETRY_IMMEDIATELY
        | response::PULL_OFFSET_MOVED => {
            reader.next = reply.number("nextBeginOffset").unwrap_or(reader.next);
            reader.end = reply.number("maxOffset");
        }
        code => {
            totals.refused.add(code, &reply.remark());
            return false;
        }
    }
    true
}

/// A filter passes messages over, and their places with them.
fn follows(choice: Choice, offset: u64, next: u64) -> bool {
    offset == next || (offset > next && !choice.is_all())
}

/// A pull of `lane` from offset `next` on, numbered `number`.
pub fn write_pull(out: &mut Vec<u8>, lane: &Lane, next: u64, number: usize, settings: &Settings) {
    let queue = lane.queue.to_string();
    let next = next.to_string();
    let messages = settings.messages.to_string();
    let hold_ms = settings.hold_ms.to_string();
    let everything = settings.subscription == Subscription::Everything;
    let flags =
        HOLD | if everything { SUBSCRIBED } else { 0 } | if settings.commits { COMMIT } else { 0 };
    let flags = flags.to_string();
    let fields = [
        ("consumerGroup", settings.group.as_str()),
        ("topic", lane.topic.as_str()),
        ("queueId", &queue),
        ("queueOffset", &next),
        ("maxMsgNums", &messages),
        ("sysFlag", &flags),
        ("commitOffset", if settings.commits { &next } else { "0" }),
        ("suspendTimeoutMillis", &hold_ms),
        ("subVersion", "0"),
        ("subscription", "*"),
        ("expressionType", "TAG"),
    ];
    // What members have said needs not be said again.
    let fields = if everything {
        &fields[..]
    } else {
        &fields[..fields.len() - 2]
    };
    let opaque = OPAQUE_FIRST + number as i32;
    wire::write_request(
        out,
        settings.encoding,
        request::PULL_MESSAGE,
        opaque,
        fields,
        b"",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_skipped_by_a_filter_only_and_never_come_twice() {
        let some = Choice::new(1, 2);
        assert!(follows(Choice::ALL, 7, 7) && !follows(Choice::ALL, 8, 7));
        assert!(follows(some, 7, 7) && follows(some, 9, 7) && !follows(some, 6, 7));
    }
}
