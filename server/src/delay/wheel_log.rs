//! RocketMQ's timer log, as bytes: one unit for each parked message, chained backwards by slots of its wheel.
//!
//! ```text
//! unit    size i32, unit before in the slot i64 (-1: none), kind i32, written ms i64, slot - written i32,
//!         log offset i64, bytes i32, hash of the topic i32, 0 i64
//! ```
//!
//! RocketMQ makes its wheel from these units when it has none. Units lie in the order of the queue, so that the last one tells
//! RocketMQ where to go on in it. No I/O here: `handover` writes what is taken.

use std::collections::HashMap;

use engine::LogOffset;

pub const UNIT_BYTES: u64 = 52;
const _: () = assert!(UNIT_BYTES == 4 + 8 + 4 + 8 + 4 + 8 + 4 + 4 + 8);
/// Ends a file in which no unit has room: its length, 0, and its name.
const BLANK_BYTES: u64 = 16;
const BLANK: i32 = -875_286_124;
const NORMAL: i32 = 1;
/// To be laid again when the slot is over.
const ROLL: i32 = 2;
const WITHDRAWS: i32 = 4;
/// RocketMQ's wheel is seven days wide (at a slot a second), in both directions.
const BEHIND_SLOTS_MAX: i64 = 6 * 86_400;
/// A unit says how far away its slot is in 31 bits.
const WAIT_MS_MAX: i64 = 20 * 86_400_000;

/// One parked message.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    pub slot_ms: i64,
    pub place: LogOffset,
    pub bytes: u32,
    pub topic_hash: i32,
    pub withdraws: bool,
}

/// How RocketMQ is set up.
#[derive(Clone, Copy, Debug)]
pub struct Wheel {
    pub precision_ms: i64,
    /// `timerRollWindowSlot`.
    pub roll_slots: i64,
    /// `mappedFileSizeTimerLog`.
    pub file_bytes: u64,
}

/// Grows at its end; what is taken is forgotten.
#[derive(Debug)]
pub struct WheelLog {
    wheel: Wheel,
    /// The slot of now.
    now_ms: i64,
    bytes: Vec<u8>,
    /// Of the first of these bytes.
    begin: u64,
    /// The last unit of each slot.
    last: HashMap<i64, u64>,
    first_slot_ms: i64,
}

/// To be written into one file.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The name of the file, as a number.
    pub file: u64,
    pub at: u64,
    pub bytes: Vec<u8>,
}

impl WheelLog {
    pub fn new(wheel: Wheel, now_ms: i64) -> Self {
        assert!(
            wheel.file_bytes >= 2 * UNIT_BYTES,
            "checked by the settings"
        );
        let now_ms = now_ms - now_ms.rem_euclid(wheel.precision_ms);
        Self {
            wheel,
            now_ms,
            bytes: Vec::new(),
            begin: 0,
            last: HashMap::new(),
            first_slot_ms: now_ms,
        }
    }

    /// Added and not taken.
    pub fn waiting_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The slot at which RocketMQ has to begin.
    pub fn first_slot_ms(&self) -> i64 {
        self.first_slot_ms
    }

    pub fn add(&mut self, unit: &Unit) {
        let (slot_ms, roll) = self.slot(unit.slot_ms);
        self.first_slot_ms = self.first_slot_ms.min(slot_ms);
        self.put(unit, slot_ms, NORMAL | if roll { ROLL } else { 0 });
    }

    /// What RocketMQ would deliver at no time: only says that the queue was read up to this message.
    pub fn end_with(&mut self, mut unit: Unit) {
        unit.slot_ms = self.first_slot_ms - self.wheel.precision_ms;
        self.put(&unit, unit.slot_ms, NORMAL);
    }

    /// What was added since this was last called.
    pub fn take(&mut self) -> Vec<Chunk> {
        let bytes = std::mem::take(&mut self.bytes);
        let mut rest = bytes.as_slice();
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let at = self.begin % self.wheel.file_bytes;
            let room = usize::try_from(self.wheel.file_bytes - at).unwrap_or(usize::MAX);
            let (chunk, behind) = rest.split_at(rest.len().min(room));
            chunks.push(Chunk {
                file: self.begin - at,
                at,
                bytes: chunk.to_vec(),
            });
            self.begin += chunk.len() as u64;
            rest = behind;
        }
        chunks
    }

    fn end(&self) -> u64 {
        self.begin + self.bytes.len() as u64
    }

    /// Where a message goes, and whether it has to be laid again from there.
    fn slot(&self, slot_ms: i64) -> (i64, bool) {
        let precision_ms = self.wheel.precision_ms;
        let slots_max = WAIT_MS_MAX / precision_ms;
        let roll_slots = self.wheel.roll_slots.min(slots_max);
        let wait_ms = slot_ms.saturating_sub(self.now_ms);
        let beyond_ms = wait_ms.saturating_sub(roll_slots * precision_ms);
        if beyond_ms < 0 {
            let oldest_ms = self.now_ms - BEHIND_SLOTS_MAX.min(slots_max) * precision_ms;
            return (slot_ms.max(oldest_ms), false);
        }
        // So that what is left is not too short for another round.
        let wait_slots = match beyond_ms < roll_slots / 3 * precision_ms {
            true => roll_slots / 2,
            false => roll_slots,
        };
        (self.now_ms + wait_slots * precision_ms, true)
    }

    fn put(&mut self, unit: &Unit, slot_ms: i64, kind: i32) {
        let left = self.wheel.file_bytes - self.end() % self.wheel.file_bytes;
        if left < UNIT_BYTES + BLANK_BYTES {
            let end = self.bytes.len() + usize::try_from(left).expect("a few bytes");
            self.number_32(i32::try_from(left).expect("a few bytes"));
            self.number_64(0);
            self.number_32(BLANK);
            self.bytes.resize(end, 0);
        }
        let position = i64::try_from(self.end()).expect("a log has 63 bits");
        let before = self.last.insert(slot_ms, self.end());
        let before = before.map_or(-1, |before| {
            i64::try_from(before).expect("a log has 63 bits")
        });
        assert!(before < position, "chained backwards");
        self.number_32(UNIT_BYTES as i32);
        self.number_64(before);
        self.number_32(if unit.withdraws {
            kind | WITHDRAWS
        } else {
            kind
        });
        self.number_64(self.now_ms);
        let wait_ms = i32::try_from(slot_ms - self.now_ms);
        self.number_32(wait_ms.expect("the wheel is a few days wide"));
        self.number_64(i64::try_from(unit.place.0).expect("a log has 63 bits"));
        self.number_32(i32::try_from(unit.bytes).expect("messages have 31 bits"));
        self.number_32(unit.topic_hash);
        self.number_64(0);
    }

    fn number_32(&mut self, number: i32) {
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    fn number_64(&mut self, number: i64) {
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHEEL: Wheel = Wheel {
        precision_ms: 1_000,
        roll_slots: 172_800,
        file_bytes: 170,
    };
    const NOW_MS: i64 = 1_000_000_500;

    fn unit(slot_ms: i64, place: u64) -> Unit {
        Unit {
            slot_ms,
            place: LogOffset(place),
            bytes: 100,
            topic_hash: 7,
            withdraws: false,
        }
    }

    fn i64_at(bytes: &[u8], at: usize) -> i64 {
        i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    fn i32_at(bytes: &[u8], at: usize) -> i32 {
        i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    }

    #[test]
    fn units_of_a_slot_are_chained_and_files_end_with_a_blank() {
        let mut log = WheelLog::new(WHEEL, NOW_MS);
        log.add(&unit(1_000_009_000, 11));
        log.add(&unit(1_000_007_000, 22));
        // The third would leave no room for a blank.
        log.add(&Unit {
            withdraws: true,
            ..unit(1_000_009_000, 33)
        });
        let chunks = log.take();
        assert_eq!(chunks.len(), 2);
        let (first, second) = (&chunks[0], &chunks[1]);
        assert_eq!((first.file, first.at, first.bytes.len()), (0, 0, 170));
        assert_eq!((second.file, second.at, second.bytes.len()), (170, 0, 52));
        let bytes = &first.bytes;
        assert_eq!((i32_at(bytes, 0), i64_at(bytes, 4)), (52, -1));
        assert_eq!(
            (i32_at(bytes, 12), i64_at(bytes, 16)),
            (NORMAL, 1_000_000_000)
        );
        assert_eq!((i32_at(bytes, 24), i64_at(bytes, 28)), (9_000, 11));
        assert_eq!((i32_at(bytes, 36), i32_at(bytes, 40)), (100, 7));
        assert_eq!((i32_at(bytes, 104), i32_at(bytes, 104 + 12)), (66, BLANK));
        assert_eq!(i64_at(&second.bytes, 4), 0, "the first of its slot");
        assert_eq!(i32_at(&second.bytes, 12), NORMAL | WITHDRAWS);
        assert_eq!(log.first_slot_ms(), 1_000_000_000);
        assert_eq!(log.take(), []);
    }

    #[test]
    fn what_is_overdue_comes_first_and_what_is_far_away_is_rolled() {
        let mut log = WheelLog::new(WHEEL, NOW_MS);
        let window_ms = 172_800_000;
        let now_ms = 1_000_000_000;
        assert_eq!(
            log.slot(now_ms + window_ms - 1_000),
            (now_ms + window_ms - 1_000, false)
        );
        assert_eq!(log.slot(now_ms + window_ms), (now_ms + window_ms / 2, true));
        assert_eq!(log.slot(now_ms + 2 * window_ms), (now_ms + window_ms, true));
        log.add(&unit(now_ms - 5_000, 1));
        assert_eq!(log.first_slot_ms(), now_ms - 5_000);
        log.end_with(unit(0, 2));
        let bytes = &log.take()[0].bytes;
        assert_eq!(i32_at(bytes, 52 + 24), -6_000, "a slot that is never read");
        assert_eq!(log.first_slot_ms(), now_ms - 5_000);
    }
}
