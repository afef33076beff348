//! Ops as they stand in the log: many of one turn in one message, each with the queue it is about.
//!
//! ```text
//! message   version u8, ops
//! op        kind u8, place, fields           place   0 group topic queue: the next place of this message, counted from 1
//! numbers   LEB128; differences zigzag               n: the n-th place of this message
//! ```

use std::sync::Arc;

use super::queue::{Op, Unacked};

const VERSION: u8 = 1;
/// Places looked through for the one of an op: more are cheaper written again.
const PLACES_SEARCHED_MAX: usize = 64;
/// What one message may announce; far more than it can hold.
const COUNT_MAX: u64 = 1 << 24;

const START: u8 = 1;
const TAKE: u8 = 2;
const ACK: u8 = 3;
const CHANGE: u8 = 4;
/// Of an earlier version: without `ahead`.
const PART_BEFORE: u8 = 5;
const FORGET: u8 = 6;
const PART: u8 = 7;

/// A queue of a topic, as a group pops it. The topic may be one of the group's retry topics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub group: Arc<str>,
    pub topic: Arc<str>,
    pub queue_id: u32,
}

/// A message that grows.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            bytes: vec![VERSION],
            places: Vec::new(),
        }
    }
}

impl Writer {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn add(&mut self, place: &Place, op: &Op) {
        match op {
            Op::Start { next } => {
                self.head(START, place);
                self.number(*next);
            }
            Op::Take {
                offsets,
                next,
                pop_ms,
                due_ms,
                attempt,
            } => {
                self.head(TAKE, place);
                self.offsets(offsets);
                self.number(*next);
                self.difference(*pop_ms);
                self.difference(due_ms.wrapping_sub(*pop_ms));
                self.text(attempt);
            }
            Op::Ack { offsets, pop_ms } => {
                self.head(ACK, place);
                self.offsets(offsets);
                self.difference(*pop_ms);
            }
            Op::Change {
                offset,
                pop_ms,
                new_pop_ms,
                due_ms,
            } => {
                self.head(CHANGE, place);
                self.number(*offset);
                self.difference(*pop_ms);
                self.difference(new_pop_ms.wrapping_sub(*pop_ms));
                self.difference(due_ms.wrapping_sub(*pop_ms));
            }
            Op::Part {
                next,
                from,
                until,
                unacked,
                attempt,
            } => {
                self.head(PART, place);
                self.part(*next, *from, *until, unacked);
                self.text(attempt);
            }
            Op::Forget => self.head(FORGET, place),
        }
    }

    fn head(&mut self, kind: u8, place: &Place) {
        self.bytes.push(kind);
        let searched = self.places.iter().take(PLACES_SEARCHED_MAX);
        let known = (1u64..).zip(searched).find(|(_, known)| *known == place);
        match known {
            Some((number, _)) => self.number(number),
            None => {
                self.number(0);
                self.text(&place.group);
                self.text(&place.topic);
                self.number(u64::from(place.queue_id));
                self.places.push(place.clone());
            }
        }
    }

    fn part(&mut self, next: u64, from: u64, until: u64, unacked: &[(u64, Unacked)]) {
        self.number(next);
        self.number(from);
        self.number(until);
        self.number(unacked.len() as u64);
        let (mut last, mut last_ms) = (from, 0);
        for &(offset, message) in unacked {
            self.number(offset - last);
            self.difference(message.pop_ms.wrapping_sub(last_ms));
            self.difference(message.due_ms.wrapping_sub(message.pop_ms));
            self.number(u64::from(message.times));
            self.number(u64::from(message.ahead));
            (last, last_ms) = (offset, message.pop_ms);
        }
    }

    /// In any order: a redelivery may bring them as they became due.
    fn offsets(&mut self, offsets: &[u64]) {
        self.number(offsets.len() as u64);
        let mut last = 0u64;
        for &offset in offsets {
            self.difference(offset.wrapping_sub(last) as i64);
            last = offset;
        }
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn difference(&mut self, value: i64) {
        self.number(((value << 1) ^ (value >> 63)) as u64);
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

/// What is in the log is not what we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of the POP log cannot be read")]
pub struct Broken;

/// Hands out the ops of a message in order.
pub fn read(bytes: &[u8], mut each: impl FnMut(&Place, Op)) -> Result<(), Broken> {
    let mut reader = Reader { bytes };
    if reader.byte()? != VERSION {
        return Err(Broken);
    }
    let mut places: Vec<Place> = Vec::new();
    while !reader.bytes.is_empty() {
        let kind = reader.byte()?;
        let index = match reader.number()? {
            0 => {
                places.push(reader.place()?);
                places.len() - 1
            }
            number => usize::try_from(number - 1).map_err(|_| Broken)?,
        };
        let op = reader.op(kind)?;
        each(places.get(index).ok_or(Broken)?, op);
    }
    Ok(())
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn op(&mut self, kind: u8) -> Result<Op, Broken> {
        Ok(match kind {
            START => Op::Start {
                next: self.number()?,
            },
            TAKE => {
                let offsets = self.offsets()?;
                let next = self.number()?;
                let pop_ms = self.difference()?;
                let due_ms = pop_ms.wrapping_add(self.difference()?);
                let attempt = self.text()?.to_owned();
                Op::Take {
                    offsets,
                    next,
                    pop_ms,
                    due_ms,
                    attempt,
                }
            }
            ACK => Op::Ack {
                offsets: self.offsets()?,
                pop_ms: self.difference()?,
            },
            CHANGE => {
                let offset = self.number()?;
                let pop_ms = self.difference()?;
                let new_pop_ms = pop_ms.wrapping_add(self.difference()?);
                let due_ms = pop_ms.wrapping_add(self.difference()?);
                Op::Change {
                    offset,
                    pop_ms,
                    new_pop_ms,
                    due_ms,
                }
            }
            PART => self.part(true)?,
            PART_BEFORE => self.part(false)?,
            FORGET => Op::Forget,
            _ => return Err(Broken),
        })
    }

    fn part(&mut self, has_ahead: bool) -> Result<Op, Broken> {
        let next = self.number()?;
        let from = self.number()?;
        let until = self.number()?;
        let count = self.count()?;
        let mut unacked = Vec::new();
        let (mut last, mut last_ms) = (from, 0i64);
        for _ in 0..count {
            last = last.checked_add(self.number()?).ok_or(Broken)?;
            last_ms = last_ms.wrapping_add(self.difference()?);
            let message = Unacked {
                pop_ms: last_ms,
                due_ms: last_ms.wrapping_add(self.difference()?),
                times: u32::try_from(self.number()?).map_err(|_| Broken)?,
                ahead: match has_ahead {
                    true => u32::try_from(self.number()?).map_err(|_| Broken)?,
                    false => 0,
                },
            };
            // A message is listed once, in its part.
            let is_next = unacked.last().is_none_or(|(before, _)| *before < last);
            if !is_next || last >= until {
                return Err(Broken);
            }
            unacked.push((last, message));
        }
        Ok(Op::Part {
            next,
            from,
            until,
            unacked,
            attempt: self.text()?.to_owned(),
        })
    }

    fn place(&mut self) -> Result<Place, Broken> {
        Ok(Place {
            group: Arc::from(self.text()?),
            topic: Arc::from(self.text()?),
            queue_id: u32::try_from(self.number()?).map_err(|_| Broken)?,
        })
    }

    fn offsets(&mut self) -> Result<Vec<u64>, Broken> {
        let count = self.count()?;
        let mut last = 0u64;
        (0..count)
            .map(|_| {
                last = last.wrapping_add(self.difference()? as u64);
                Ok(last)
            })
            .collect()
    }

    fn count(&mut self) -> Result<u64, Broken> {
        let count = self.number()?;
        match count <= COUNT_MAX {
            true => Ok(count),
            false => Err(Broken),
        }
    }

    fn text(&mut self) -> Result<&str, Broken> {
        let len = usize::try_from(self.number()?).map_err(|_| Broken)?;
        let (text, rest) = self.bytes.split_at_checked(len).ok_or(Broken)?;
        self.bytes = rest;
        std::str::from_utf8(text).map_err(|_| Broken)
    }

    fn difference(&mut self) -> Result<i64, Broken> {
        let value = self.number()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn number(&mut self) -> Result<u64, Broken> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // The tenth byte has room for one bit.
                return match bits << shift >> shift == bits {
                    true => Ok(value),
                    false => Err(Broken),
                };
            }
        }
        Err(Broken)
    }

    fn byte(&mut self) -> Result<u8, Broken> {
        let (&byte, rest) = self.bytes.split_first().ok_or(Broken)?;
        self.bytes = rest;
        Ok(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ops() -> impl Strategy<Value = Op> {
        let offsets = || prop::collection::vec(any::<u64>(), 0..5);
        let unacked = prop::collection::btree_map(
            0..1_000_000u64,
            (any::<i64>(), any::<i64>(), any::<u32>(), any::<u32>()),
            0..5,
        );
        prop_oneof![
            any::<u64>().prop_map(|next| Op::Start { next }),
            (
                offsets(),
                any::<u64>(),
                any::<i64>(),
                any::<i64>(),
                ".{0,9}"
            )
                .prop_map(|(offsets, next, pop_ms, due_ms, attempt)| Op::Take {
                    offsets,
                    next,
                    pop_ms,
                    due_ms,
                    attempt
                }),
            (offsets(), any::<i64>()).prop_map(|(offsets, pop_ms)| Op::Ack { offsets, pop_ms }),
            (any::<u64>(), any::<i64>(), any::<i64>(), any::<i64>()).prop_map(
                |(offset, pop_ms, new_pop_ms, due_ms)| Op::Change {
                    offset,
                    pop_ms,
                    new_pop_ms,
                    due_ms
                }
            ),
            (any::<u64>(), unacked, ".{0,9}").prop_map(|(next, unacked, attempt)| Op::Part {
                attempt,
                next,
                from: 0,
                until: u64::MAX,
                unacked: unacked
                    .into_iter()
                    .map(|(offset, (pop_ms, due_ms, times, ahead))| (
                        offset,
                        Unacked {
                            pop_ms,
                            due_ms,
                            times,
                            ahead
                        }
                    ))
                    .collect(),
            }),
            Just(Op::Forget),
        ]
    }

    fn places() -> impl Strategy<Value = Place> {
        ("[gh]", "[tu]{1,2}", 0..3u32).prop_map(|(group, topic, queue_id)| Place {
            group: Arc::from(group),
            topic: Arc::from(topic),
            queue_id,
        })
    }

    proptest! {
        #[test]
        fn ops_are_read_as_they_were_written(entries in prop::collection::vec((places(), ops()), 0..100)) {
            let mut writer = Writer::default();
            entries.iter().for_each(|(place, op)| writer.add(place, op));
            let mut back = Vec::new();
            read(writer.bytes(), |place, op| back.push((place.clone(), op))).expect("its own");
            prop_assert_eq!(back, entries);
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, |_, _| {});
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = read(&bytes, |_, _| {});
        }
    }

    #[test]
    fn a_part_of_an_earlier_version_is_read() {
        let bytes = [
            VERSION,
            PART_BEFORE,
            0,
            1,
            b'g',
            1,
            b't',
            3,
            9,
            5,
            9,
            1,
            2,
            20,
            40,
            6,
            0,
        ];
        let mut back = Vec::new();
        read(&bytes, |_, op| back.push(op)).expect("well-formed");
        let unacked = Unacked {
            pop_ms: 10,
            due_ms: 30,
            times: 6,
            ahead: 0,
        };
        let expected = Op::Part {
            next: 9,
            from: 5,
            until: 9,
            unacked: vec![(7, unacked)],
            attempt: String::new(),
        };
        assert_eq!(back, [expected]);
    }

    #[test]
    fn an_ack_costs_few_bytes() {
        let place = Place {
            group: Arc::from("a-group-of-usual-length"),
            topic: Arc::from("a-topic-of-usual-length"),
            queue_id: 3,
        };
        let mut writer = Writer::default();
        let ack = |offset| Op::Ack {
            offsets: vec![offset],
            pop_ms: 1_700_000_000_000,
        };
        writer.add(&place, &ack(1_000_000));
        let first = writer.bytes().len();
        writer.add(&place, &ack(1_000_001));
        assert!(
            writer.bytes().len() - first <= 12,
            "{}",
            writer.bytes().len() - first
        );
    }
}
