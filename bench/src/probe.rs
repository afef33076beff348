//! Asks a broker again and again whether it takes a message, and says when it first did.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::load::Lane;
use crate::load::produce::{self, Ack};
use crate::payload::{Clock, Filler, Stamp};
use crate::wire::{Encoding, OPAQUE_FIRST, response};

pub struct Probe {
    broker: SocketAddr,
    lane: Lane,
    filler: Filler,
    clock: Clock,
    sequence: u64,
}

const ASK_AGAIN: Duration = Duration::from_millis(1);
/// Producer number of the messages that only ask.
const PRODUCER: u32 = u32::MAX;

impl Probe {
    /// Sends to `lane`, which is lane 0 to whoever reads it back.
    pub fn new(broker: SocketAddr, lane: &Lane, body_bytes: usize) -> Probe {
        Probe {
            broker,
            lane: lane.clone(),
            filler: Filler::new(body_bytes),
            clock: Clock::start(),
            sequence: 0,
        }
    }

    /// Where the first message that was taken lies; after the deadline, why the last one was not.
    pub fn until_accepted(&mut self, deadline: Instant) -> Result<Ack> {
        loop {
            match self.send() {
                Ok(ack) => return Ok(ack),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => thread::sleep(ASK_AGAIN),
            }
        }
    }

    pub fn send(&mut self) -> Result<Ack> {
        let mut control = Control::connect(self.broker)?;
        // A message whose answer got lost may be stored; the next one has a number of its own.
        self.sequence += 1;
        let stamp = Stamp {
            producer: PRODUCER,
            lane: 0,
            sequence: self.sequence,
            intended_ns: self.clock.now_ns(),
        };
        let mut frame = Vec::new();
        produce::write_single(
            &mut frame,
            Encoding::Json,
            &self.lane,
            &self.filler,
            stamp,
            OPAQUE_FIRST,
        );
        let answer = control.ask_frame(&frame, OPAQUE_FIRST)?;
        let reply = answer.reply();
        match (reply.code, reply.number("queueOffset")) {
            (response::SUCCESS, Some(queue_offset)) => Ok(Ack {
                producer: PRODUCER,
                lane: 0,
                sequence: self.sequence,
                queue_offset,
            }),
            _ => Err(Error::Refused {
                what: "sending one message".into(),
                code: reply.code,
                remark: reply.remark(),
            }),
        }
    }
}
