//! From an unbroken request to a broken one: first its fields and body are tampered with, then it is laid out, then
//! its bytes, and now and then its lengths.

use super::frames::{self, Frame, PROTECTED, Role};
use crate::wire::{self, Encoding, OPAQUE_FIRST};

/// Values that number parsers, name checks and string code have been known to stumble over.
const HOSTILE: [&str; 18] = [
    "",
    " ",
    "-1",
    "0",
    "2147483647",
    "2147483648",
    "-2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "99999999999999999999999999",
    "1e9",
    "NaN",
    "null",
    "true",
    "../../../etc/passwd",
    "%00\u{0}\u{1}\u{2}",
    "\u{202e}\u{fffd}\u{10ffff}",
    "a || b && c IS NOT NULL ((((((((",
];

/// How far mutations may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Fields and bodies only: the frame can be decoded, so that handlers get to see what is wrong in it.
    Content,
    /// Everything; mostly the server closes the connection before long.
    Bytes,
}

/// Appends one frame; true if nothing that follows it on the connection can be understood.
pub fn append(random: &mut fastrand::Rng, role: Role, depth: Depth, out: &mut Vec<u8>) -> bool {
    let mut all = frames::of(role);
    let mut frame = all.swap_remove(random.usize(..all.len()));
    // Some frames stay whole: broken ones must not spoil what an honest one gets.
    let how = match depth {
        Depth::Content => random.u8(..20),
        Depth::Bytes => random.u8(..50),
    };
    if (5..25).contains(&how) {
        tamper(random, &mut frame);
    }
    let encoding = if random.u8(..4) == 0 {
        Encoding::Binary
    } else {
        Encoding::Json
    };
    let fields: Vec<(&str, &str)> = frame
        .fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let start = out.len();
    let opaque = OPAQUE_FIRST + random.i32(0..1_000_000);
    let layout = wire::write_request(out, encoding, frame.code, opaque, &fields, &frame.body);
    let bytes = &mut out[start..];
    match how {
        20..40 => flip(random, bytes, 4..bytes.len()),
        40..43 => flip(random, bytes, 4..8),
        43 => rubbish_header(random, bytes, layout.body_at),
        44 => bytes[4] = random.u8(..),
        45 => {
            nest(random, out, start);
            return false;
        }
        46 => return break_length(random, out, start),
        47 => return cut(random, out, start),
        _ => {}
    }
    false
}

fn tamper(random: &mut fastrand::Rng, frame: &mut Frame) {
    for _ in 0..random.u8(1..4) {
        let count = frame.fields.len();
        match random.u8(..8) {
            0..4 if count > 0 => {
                let (_, value) = &mut frame.fields[random.usize(..count)];
                *value = hostile(random, PROTECTED.contains(&value.as_str()));
            }
            4 if count > 0 => drop(frame.fields.swap_remove(random.usize(..count))),
            5 if count > 0 => {
                let again = frame.fields[random.usize(..count)].clone();
                frame.fields.push(again);
            }
            6 => frame.body.truncate(random.usize(..=frame.body.len())),
            7 => {
                let len = random.usize(..300);
                frame.body = (0..len).map(|_| random.u8(..)).collect();
            }
            _ => frame.code = random.i32(0..400),
        }
    }
}

/// A name becomes one of a few: under millions of names the servers would rightly keep as many things.
fn hostile(random: &mut fastrand::Rng, is_name: bool) -> String {
    let kinds = HOSTILE.len() + if is_name { 1 } else { 3 };
    match random.usize(..kinds) {
        number if number < HOSTILE.len() => HOSTILE[number].to_owned(),
        number if number == HOSTILE.len() => "x".repeat([128, 256, 70_000][random.usize(..3)]),
        number if number == HOSTILE.len() + 1 => "x".repeat(random.usize(..70_000)),
        _ => random.i64(..).to_string(),
    }
}

/// A few bytes become others, but no name turns into a new one.
fn flip(random: &mut fastrand::Rng, bytes: &mut [u8], range: std::ops::Range<usize>) {
    for _ in 0..random.u8(1..6) {
        let at = random.usize(range.clone());
        if !is_protected(bytes, at) {
            bytes[at] = match random.bool() {
                true => bytes[at] ^ (1 << random.u8(..8)),
                false => random.u8(..),
            };
        }
    }
}

fn is_protected(bytes: &[u8], at: usize) -> bool {
    PROTECTED.iter().any(|name| {
        let from = (at + 1).saturating_sub(name.len());
        let to = (at + name.len()).min(bytes.len());
        memchr::memmem::find(&bytes[from..to], name.as_bytes()).is_some()
    })
}

fn rubbish_header(random: &mut fastrand::Rng, bytes: &mut [u8], body_at: usize) {
    bytes[8..body_at].fill_with(|| random.u8(..));
}

/// A header of nothing but opening brackets.
fn nest(random: &mut fastrand::Rng, out: &mut Vec<u8>, start: usize) {
    out.truncate(start);
    let depth = random.usize(1..100_000);
    let bracket = if random.bool() {
        b"[" as &[u8]
    } else {
        b"{\"a\":"
    };
    let header = bracket.repeat(depth);
    out.extend_from_slice(&((header.len() + 4) as u32).to_be_bytes());
    out.extend_from_slice(&(header.len() as u32).to_be_bytes());
    out.extend_from_slice(&header);
}

/// The length word lies: what follows is read from the wrong place, or waited for in vain.
fn break_length(random: &mut fastrand::Rng, out: &mut [u8], start: usize) -> bool {
    let word = match random.u8(..6) {
        0 => 0,
        1 => random.u32(1..8),
        2 => u32::MAX,
        3 => 0x7FFF_FFFF,
        4 => (16 << 20) + 1,
        _ => random.u32(..),
    };
    out[start..start + 4].copy_from_slice(&word.to_be_bytes());
    true
}

fn cut(random: &mut fastrand::Rng, out: &mut Vec<u8>, start: usize) -> bool {
    let len = random.usize(1..out.len() - start);
    out.truncate(start + len);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_breaks_the_same_frames() {
        let run = |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut out = Vec::new();
            for _ in 0..500 {
                append(&mut random, Role::Broker, Depth::Bytes, &mut out);
            }
            out
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn flipped_bytes_never_touch_a_protected_name() {
        let mut random = fastrand::Rng::with_seed(1);
        let whole = format!("..{}....{}..", frames::TOPIC, frames::GROUP).into_bytes();
        for _ in 0..2_000 {
            let mut bytes = whole.clone();
            let len = bytes.len();
            flip(&mut random, &mut bytes, 0..len);
            for name in [frames::TOPIC, frames::GROUP] {
                assert!(memchr::memmem::find(&bytes, name.as_bytes()).is_some());
            }
        }
    }

    #[test]
    fn a_frame_that_leaves_the_stream_readable_has_a_true_length() {
        let mut random = fastrand::Rng::with_seed(3);
        for (role, depth) in [
            (Role::Broker, Depth::Bytes),
            (Role::NameServer, Depth::Content),
        ] {
            for _ in 0..5_000 {
                let mut out = Vec::new();
                if !append(&mut random, role, depth, &mut out) {
                    let len = u32::from_be_bytes(*out.first_chunk().expect("four bytes"));
                    assert_eq!(len as usize, out.len() - 4);
                }
            }
        }
    }
}
