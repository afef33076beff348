//! The cases of `--features`: what a broker does beyond taking messages and giving them out, each measured by what one
//! message costs. Every case checks that what arrives is what was sent, as often as it was, and nothing besides.

mod consuming;
mod delayed;
mod stock;
mod transactions;

use super::cases::{Case, Measured, Measuring};
use crate::contender::Contender;
use crate::error::Result;

pub const CASES: [Case; 9] = [
    Case::Delayed,
    Case::DelayedLevel,
    Case::DelayedBurst,
    Case::Transactions,
    Case::TagFilter,
    Case::SqlFilter,
    Case::Orderly,
    Case::Pop,
    Case::PopBatch,
];

/// What both need in their broker.conf, beside ASYNC_FLUSH.
pub const SETTING: &str = "enablePropertyFilter=true";

/// RocketMQ refuses sends that have waited for 200 ms, which a JVM that has just started takes for some of them.
pub const PATIENCE: &str = "waitTimeMillsInSendQueue=5000";

/// `None`: the case is none of these.
pub fn run(
    contender: &Contender,
    case: Case,
    label: &str,
    measuring: Measuring,
) -> Option<Result<Measured>> {
    let topic = format!("{case:?}-{label}");
    Some(match case {
        Case::Delayed => delayed::timed(contender, &topic, measuring),
        Case::DelayedLevel => delayed::level(contender, &topic, measuring),
        Case::DelayedBurst => delayed::burst(contender, &topic, measuring),
        Case::Transactions => transactions::run(contender, &topic, measuring),
        Case::TagFilter | Case::SqlFilter | Case::Orderly | Case::Pop | Case::PopBatch => {
            consuming::run(contender, case, label, measuring)
        }
        _ => return None,
    })
}
