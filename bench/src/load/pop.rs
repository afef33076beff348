//! The popping third of the generator: on each connection one pop in flight over all queues of a topic, and every message
//! acknowledged as soon as it was checked. A message counts when the broker has taken its acknowledgement.

mod handle;

use std::io;
use std::net::SocketAddr;

use self::handle::{Handle, Origin};
use super::Refusals;
use crate::connection::Connection;
use crate::ledger::Ledger;
use crate::payload::{self, Stamp};
use crate::record::{self, Record};
use crate::wire::{self, Encoding, OPAQUE_FIRST, Reply, request, response};

pub struct Settings {
    pub connections: usize,
    pub topic: String,
    pub queues: u32,
    pub group: String,
    /// As the broker calls itself.
    pub broker_name: String,
    /// Messages asked for in one pop.
    pub messages: u32,
    pub acks: Acks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// One request for each message.
    Single,
    /// One request for all messages of a pop.
    Together,
}

/// Long enough that none is delivered twice while it is measured.
const INVISIBLE_MS: &str = "120000";
/// How long the broker may hold a pop that finds nothing.
const HOLD_MS: &str = "15000";
const ALL_QUEUES: &str = "-1";
const FROM_FIRST: &str = "0";
/// Codes above a short's range fit into no other encoding.
const ENCODING: Encoding = Encoding::Json;
/// Pops have this number, acknowledgements count on from it.
const POP: i32 = OPAQUE_FIRST;

struct Peer {
    connection: Option<Connection>,
    /// What is to be said once an answer is read.
    output: Vec<u8>,
    /// Messages of each acknowledgement that is on its way, by number; answers come in any order.
    acks: Vec<u32>,
    free: Vec<u32>,
}

pub struct Poppers {
    peers: Vec<Peer>,
    settings: Settings,
    pub ledger: Ledger,
    pub totals: Totals,
}

#[derive(Default)]
pub struct Totals {
    /// Messages whose acknowledgement was taken.
    pub acknowledged: u64,
    pub bytes: u64,
    pub refused: Refusals,
    pub disconnected: u32,
}

impl Poppers {
    pub fn connect(broker: SocketAddr, settings: Settings) -> io::Result<Poppers> {
        let open = |_| {
            Ok(Peer {
                connection: Some(Connection::open(broker)?),
                output: Vec::new(),
                acks: Vec::new(),
                free: Vec::new(),
            })
        };
        let peers = (0..settings.connections)
            .map(open)
            .collect::<io::Result<_>>()?;
        Ok(Poppers {
            peers,
            settings,
            ledger: Ledger::default(),
            totals: Totals::default(),
        })
    }

    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.peers
            .iter()
            .filter_map(|peer| peer.connection.as_ref())
    }

    /// The first pop of every connection.
    pub fn prime(&mut self) {
        for index in 0..self.peers.len() {
            write_pop(&mut self.peers[index].output, &self.settings);
            self.flush(index);
        }
    }

    /// The socket of connection `index` is readable or writable.
    pub fn ready(&mut self, index: usize) {
        let Poppers {
            peers,
            settings,
            ledger,
            totals,
        } = self;
        let Peer {
            connection,
            output,
            acks,
            free,
        } = &mut peers[index];
        let Some(open) = connection.as_mut() else {
            return;
        };
        let result = open.read(|frame| {
            let Some(reply) = Reply::parse(frame) else {
                totals.refused.add(-1, "an answer that is not a frame");
                return;
            };
            if reply.opaque == POP {
                let mut asking = Asking { output, acks, free };
                popped(&reply, settings, &mut asking, ledger, totals);
                write_pop(output, settings);
            } else if let Some(number) = reply.opaque.checked_sub(POP + 1)
                && let Some(messages) = acks.get_mut(number as usize)
            {
                free.push(number as u32);
                match reply.code {
                    response::SUCCESS => totals.acknowledged += u64::from(*messages),
                    code => totals.refused.add(code, &reply.remark()),
                }
            }
        });
        if result.is_err() {
            *connection = None;
            totals.disconnected += 1;
        }
        self.flush(index);
    }

    fn flush(&mut self, index: usize) {
        let Peer {
            connection, output, ..
        } = &mut self.peers[index];
        let Some(open) = connection.as_mut() else {
            return;
        };
        open.output().append(output);
        if open.flush().is_err() {
            *connection = None;
            self.totals.disconnected += 1;
        }
    }
}

/// Where acknowledgements are written and counted.
struct Asking<'a> {
    output: &'a mut Vec<u8>,
    acks: &'a mut Vec<u32>,
    free: &'a mut Vec<u32>,
}

impl Asking<'_> {
    /// The opaque of an acknowledgement of so many messages.
    fn opaque(&mut self, messages: u32) -> i32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.acks.push(0);
            self.acks.len() as u32 - 1
        });
        self.acks[number as usize] = messages;
        POP + 1 + number as i32
    }
}

fn popped(
    reply: &Reply,
    settings: &Settings,
    asking: &mut Asking,
    ledger: &mut Ledger,
    totals: &mut Totals,
) {
    match reply.code {
        response::SUCCESS => {}
        response::PULL_NOT_FOUND | response::POLLING_FULL | response::POLLING_TIMEOUT => return,
        code => return totals.refused.add(code, &reply.remark()),
    }
    totals.bytes += reply.body.len() as u64;
    let Some(origin) = Origin::of(reply) else {
        return totals.refused.add(-1, "a pop's answer without its origin");
    };
    let mut handles = Vec::with_capacity(settings.messages as usize);
    for record in record::records(reply.body) {
        let Ok(record) = record else {
            ledger.saw_damage();
            break;
        };
        match (checked(&record, settings), origin.handle(&record)) {
            (Some(stamp), Some(handle)) => {
                ledger.saw(&stamp);
                handles.push(handle);
            }
            _ => ledger.saw_damage(),
        }
    }
    match settings.acks {
        Acks::Single => handles.iter().for_each(|handle| {
            let opaque = asking.opaque(1);
            write_ack(asking.output, settings, &origin, handle, opaque);
        }),
        Acks::Together if !handles.is_empty() => {
            let opaque = asking.opaque(handles.len() as u32);
            let code = request::BATCH_ACK_MESSAGE;
            let body = handle::batch_ack(settings, &origin, &handles);
            wire::write_request(asking.output, ENCODING, code, opaque, &[], &body);
        }
        Acks::Together => {}
    }
}

/// `None`: not as it was sent.
fn checked(record: &Record, settings: &Settings) -> Option<Stamp> {
    let in_place = record.queue_id < settings.queues
        && record.body_crc == crc32fast::hash(record.body) & 0x7FFF_FFFF;
    payload::open(record.body).filter(|_| in_place)
}

fn write_pop(out: &mut Vec<u8>, settings: &Settings) {
    let messages = settings.messages.to_string();
    let fields = [
        ("consumerGroup", settings.group.as_str()),
        ("topic", settings.topic.as_str()),
        ("queueId", ALL_QUEUES),
        ("maxMsgNums", &messages),
        ("invisibleTime", INVISIBLE_MS),
        ("pollTime", HOLD_MS),
        ("bornTime", "0"),
        ("initMode", FROM_FIRST),
        ("expType", "TAG"),
        ("exp", "*"),
        ("order", "false"),
    ];
    wire::write_request(out, ENCODING, request::POP_MESSAGE, POP, &fields, b"");
}

fn write_ack(
    out: &mut Vec<u8>,
    settings: &Settings,
    origin: &Origin,
    handle: &Handle,
    opaque: i32,
) {
    let text = origin.text(handle, &settings.broker_name);
    let (queue, offset) = (handle.queue.to_string(), handle.offset.to_string());
    let fields = [
        ("consumerGroup", settings.group.as_str()),
        ("topic", settings.topic.as_str()),
        ("queueId", &queue),
        ("extraInfo", &text),
        ("offset", &offset),
    ];
    wire::write_request(out, ENCODING, request::ACK_MESSAGE, opaque, &fields, b"");
}
