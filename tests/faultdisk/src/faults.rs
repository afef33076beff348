//! What is to go wrong: rules for operations, bad sectors, flipped bits, slowness. Set by control commands, asked by the
//! disk on every operation. Pure.

mod command;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::sector::SECTOR_BYTES;

pub use command::{Bad, Command, Flip, HELP, Rule, Slow, parse};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    Read,
    Write,
    Fsync,
    /// Names, lengths, allocation.
    Meta,
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Fine,
    Errno(i32),
    /// Half of a write is done.
    Short,
    /// A failed sync that throws away what it should have written, while the page cache still shows it.
    Lose(i32),
}

#[derive(Default)]
pub struct Faults {
    rules: Vec<Rule>,
    slow: BTreeMap<Op, Duration>,
    bad: Vec<Bad>,
    flips: Vec<Flip>,
    /// How often each kind of fault struck.
    pub struck: u64,
}

impl Faults {
    pub fn clear(&mut self) {
        *self = Faults {
            struck: self.struck,
            ..Faults::default()
        };
    }

    /// Paths of files that are read otherwise than they are written.
    pub fn damaged(&self) -> Vec<String> {
        let bad = self.bad.iter().map(|bad| bad.path.clone());
        bad.chain(self.flips.iter().map(|flip| flip.path.clone()))
            .collect()
    }

    pub fn add_rule(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    pub fn add_bad(&mut self, bad: Bad) {
        self.bad.push(bad);
    }

    pub fn add_flip(&mut self, flip: Flip) {
        self.flips.push(flip);
    }

    pub fn set_slow(&mut self, slow: Slow) {
        for op in slow.ops {
            self.slow.insert(op, slow.delay);
        }
    }

    pub fn delay(&self, op: Op) -> Duration {
        self.slow.get(&op).copied().unwrap_or_default()
    }

    /// The first rule that fits decides, and is used up by one.
    pub fn fate(&mut self, op: Op, path: &str) -> Fate {
        let fits = |rule: &Rule| rule.ops.contains(&op) && matches(&rule.paths, path);
        let Some(at) = self.rules.iter().position(fits) else {
            return Fate::Fine;
        };
        self.struck += 1;
        let rule = &mut self.rules[at];
        let fate = rule.fate;
        if let Some(left) = &mut rule.left {
            *left -= 1;
            if *left == 0 {
                self.rules.remove(at);
            }
        }
        fate
    }

    /// Whether a read meets a sector that cannot be read.
    pub fn is_bad(&mut self, path: &str, offset: u64, len: u64) -> bool {
        let hit = self.bad.iter().any(|bad| {
            let from = bad.offset / SECTOR_BYTES * SECTOR_BYTES;
            let to = (bad.offset + bad.len).next_multiple_of(SECTOR_BYTES);
            bad.path == path && from < offset + len && offset < to
        });
        self.struck += u64::from(hit);
        hit
    }

    /// Turns over the bits that are to be wrong in what was read.
    pub fn flip(&mut self, path: &str, offset: u64, bytes: &mut [u8]) {
        for flip in self.flips.iter().filter(|flip| flip.path == path) {
            let within = flip.offset.checked_sub(offset);
            if let Some(byte) = within.and_then(|at| bytes.get_mut(at as usize)) {
                *byte ^= 1 << flip.bit;
                self.struck += 1;
            }
        }
    }
}

/// `*` stands for any number of characters, slashes among them.
fn matches(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((start, rest)) => path.strip_prefix(start).is_some_and(|left| {
            let ends = (0..=left.len()).filter(|at| left.is_char_boundary(*at));
            ends.into_iter().any(|at| matches(rest, &left[at..]))
        }),
    }
}

#[cfg(test)]
mod tests;
