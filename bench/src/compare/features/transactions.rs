//! Transactions: a half message, its producer's decision, and a consumer that waits for what is committed. One in eight is
//! rolled back and must never be seen.

use crate::compare::cases::{self, CPU_US, Measured, Measuring, PER_SECOND};
use crate::contender::Contender;
use crate::error::Result;
use crate::fill;
use crate::load::{self, Choice, Live, Plan, consume, produce};
use crate::wire::Encoding;

const COMMITTED: Choice = Choice::new(7, 8);
const CONNECTIONS: u16 = 16;
const IN_FLIGHT_EACH: u16 = 8;

pub fn run(contender: &Contender, topic: &str, measuring: Measuring) -> Result<Measured> {
    let lanes = fill::make_topic(contender.broker, topic)?;
    let produce = produce::Settings {
        transactions: Some(COMMITTED),
        ..cases::sends(CONNECTIONS, IN_FLIGHT_EACH, None).settings(Encoding::Json)
    };
    let consume = consume::Settings {
        choice: COMMITTED,
        ..fill::reader(1)
    };
    let starts = vec![0; lanes.len()];
    let plan = Plan {
        produce: Some(produce),
        consume: Some((consume, starts)),
        ..cases::plan(contender, lanes, &cases::window(measuring), measuring)
    };
    let figures = fill::checked(&load::run(plan, &Live::default())?, 0)?;
    let sent = cases::accepted(contender, &figures)?;
    let mut measured = Measured::from([
        (PER_SECOND, sent.per_second),
        (CPU_US, cases::cpu_us(&figures)?),
    ]);
    cases::add_latency(&mut measured, &sent.latency);
    Ok(measured)
}
