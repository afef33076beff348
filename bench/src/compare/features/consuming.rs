//! Reading one filled topic again and again until the window is over: through filters, in order with locks and committed
//! offsets, and popped. Each pass reads all of it.

use std::time::Instant;

use super::stock::{self, Stock};
use crate::compare::cases::{self, CPU_US, Case, Measured, Measuring, PER_SECOND};
use crate::contender::{BROKER_NAME, Contender};
use crate::error::{Error, Result};
use crate::fill;
use crate::load::pop::Acks;
use crate::load::{self, Choice, Live, Plan, StopWhen, consume, pop};
use crate::member::{Member, Wanted};
use crate::options::Window;
use crate::report::Figures;

/// How long one pass may take.
const PASS_LIMIT_S: f64 = 120.0;
const POP_CONNECTIONS: usize = 4;
const CLIENT: &str = "127.0.0.1@orbit-bench";
const RIVAL: &str = "127.0.0.1@rival";

pub fn run(
    contender: &Contender,
    case: Case,
    label: &str,
    measuring: Measuring,
) -> Result<Measured> {
    let stock = stock::stocked(contender, label, measuring)?;
    let started = Instant::now();
    let (mut messages, mut seconds, mut cpu) = (0.0, 0.0, 0.0);
    let mut pass = 0;
    while pass == 0 || started.elapsed().as_secs_f64() < measuring.window_s {
        let reading = Reading {
            contender,
            stock: &stock,
            // What one pass has committed must not be in the way of the next.
            group: format!("{case:?}-{label}-{pass}"),
            measuring,
        };
        let figures = match case {
            Case::TagFilter => reading.filtered(stock::BY_TAG),
            Case::SqlFilter => reading.filtered(stock::BY_SQL),
            Case::Orderly => reading.in_order(),
            Case::Pop => reading.popped(Acks::Single),
            Case::PopBatch => reading.popped(Acks::Together),
            _ => unreachable!("the caller has looked"),
        }?;
        let read = figures.consumed.as_ref().expect("the plan reads").messages as f64;
        messages += read;
        seconds += figures.window_s;
        cpu += cases::cpu_us(&figures)? * read;
        pass += 1;
    }
    Ok(Measured::from([
        (PER_SECOND, messages / seconds),
        (CPU_US, cpu / messages),
    ]))
}

/// One pass.
struct Reading<'a> {
    contender: &'a Contender,
    stock: &'a Stock,
    group: String,
    measuring: Measuring,
}

impl Reading<'_> {
    fn filtered(&self, wanted: Wanted) -> Result<Figures> {
        let _member = self.member(CLIENT, wanted)?;
        self.checked(self.pulling(self.settings(), stock::FILTERED))
    }

    fn in_order(&self) -> Result<Figures> {
        let mut member = self.member(CLIENT, Wanted::Everything)?;
        self.lock(&mut member, self.stock.lanes.len())?;
        let settings = consume::Settings {
            commits: true,
            ..self.settings()
        };
        let figures = self.checked(self.pulling(settings, Choice::ALL))?;
        let counts = figures.consumed.as_ref().expect("the plan reads").counts;
        if counts.out_of_order > 0 {
            return Err(self.failed(format!("{} messages out of order", counts.out_of_order)));
        }
        self.has_committed(&mut member)?;
        // What was read under locks was locked all the while.
        let mut rival = self.member(RIVAL, Wanted::Everything)?;
        self.lock(&mut rival, 0)?;
        self.lock(&mut member, self.stock.lanes.len())?;
        Ok(figures)
    }

    fn popped(&self, acks: Acks) -> Result<Figures> {
        let settings = pop::Settings {
            connections: POP_CONNECTIONS,
            topic: self.stock.topic.clone(),
            queues: fill::QUEUES,
            group: self.group.clone(),
            broker_name: BROKER_NAME.into(),
            messages: fill::PULL_MESSAGES,
            acks,
        };
        let plan = Plan {
            pop: Some(settings),
            ..self.plan(Choice::ALL)
        };
        let figures = self.checked(plan)?;
        // An acknowledgement that was only answered moves no offset.
        let mut member = self.member(CLIENT, Wanted::Everything)?;
        self.has_committed(&mut member)?;
        Ok(figures)
    }

    fn has_committed(&self, member: &mut Member) -> Result<()> {
        let ended = member.wait_for_end(&self.stock.lanes);
        ended.map_err(|error| self.failed(error.to_string()))
    }

    fn member(&self, client: &str, wanted: Wanted) -> Result<Member> {
        let broker = self.contender.broker;
        Member::join(broker, &self.group, client, &self.stock.topic, wanted)
    }

    fn lock(&self, member: &mut Member, expected: usize) -> Result<()> {
        match member.lock(&self.stock.lanes, BROKER_NAME)? {
            held if held == expected => Ok(()),
            held => Err(self.failed(format!("{held} queues locked instead of {expected}"))),
        }
    }

    fn settings(&self) -> consume::Settings {
        consume::Settings {
            group: self.group.clone(),
            subscription: consume::Subscription::OfMembers,
            ..fill::reader(1)
        }
    }

    fn pulling(&self, settings: consume::Settings, choice: Choice) -> Plan {
        let settings = consume::Settings { choice, ..settings };
        Plan {
            consume: Some((settings, vec![0; self.stock.lanes.len()])),
            ..self.plan(choice)
        }
    }

    fn plan(&self, choice: Choice) -> Plan {
        let until_read = Window {
            duration: PASS_LIMIT_S,
            warmup: 0.0,
        };
        Plan {
            // The last messages of a queue may be none that are chosen.
            stop_when: StopWhen::Consumed(choice.count(self.stock.messages)),
            ..cases::plan(
                self.contender,
                self.stock.lanes.clone(),
                &until_read,
                self.measuring,
            )
        }
    }

    /// Each message that is to come, once.
    fn checked(&self, plan: Plan) -> Result<Figures> {
        let StopWhen::Consumed(expected) = plan.stop_when else {
            unreachable!("every pass ends so");
        };
        let figures = fill::checked(&load::run(plan, &Live::default())?, 0)?;
        let found = figures.consumed.as_ref().expect("the plan reads").messages;
        match found == expected {
            true => Ok(figures),
            false => Err(self.failed(format!("{found} messages of {expected}"))),
        }
    }

    fn failed(&self, what: String) -> Error {
        Error::Failed(format!("{} on {}: {what}", self.group, self.contender.name))
    }
}
