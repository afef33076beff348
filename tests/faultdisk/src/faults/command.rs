//! The control language, one line a command. See `HELP`.

use std::time::Duration;

use super::{Fate, Op};

pub const HELP: &str = "\
drop-unsynced [seed]                       power cut: each unsynced sector is old or new, unsynced names may vanish
fail OPS ERRNO [path-glob] [count]         OPS: read,write,fsync,meta,any; ERRNO: EIO, ENOSPC, EROFS
lose ERRNO [path-glob] [count]             a sync fails and what it should have written is gone
short-write [path-glob] [count]            half of a write is done
full BYTES                                 so much space is left
slow MICROSECONDS [OPS]                    each operation takes at least so long
flip PATH OFFSET BIT                       this bit is wrong when read
bad PATH OFFSET LEN                        these sectors cannot be read
mark TEXT                                  a line in the trace
clear                                      everything is well again
stats                                      counts";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Cut { seed: u64 },
    Fail(Rule),
    Full { bytes: u64 },
    Slow(Slow),
    Flip(Flip),
    Bad(Bad),
    Mark(String),
    Clear,
    Stats,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub ops: Vec<Op>,
    pub fate: Fate,
    pub paths: String,
    /// `None`: for ever.
    pub left: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slow {
    pub delay: Duration,
    pub ops: Vec<Op>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flip {
    pub path: String,
    pub offset: u64,
    pub bit: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    pub path: String,
    pub offset: u64,
    pub len: u64,
}

const ALL_PATHS: &str = "*";
/// Everything but reading.
const ANY: [Op; 3] = [Op::Write, Op::Fsync, Op::Meta];

/// `Err` says what is wrong, in words for a human.
pub fn parse(line: &str) -> Result<Command, String> {
    let line = line.trim_end_matches(['\r', '\n']);
    if let Some(text) = line.strip_prefix("mark ") {
        return Ok(Command::Mark(text.to_owned()));
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some((verb, rest)) = words.split_first() else {
        return Err("an empty line".into());
    };
    let command = match (*verb, rest) {
        ("drop-unsynced", []) => Command::Cut { seed: 0 },
        ("drop-unsynced", [seed]) => Command::Cut {
            seed: number(seed)?,
        },
        ("fail", [ops, errno, rest @ ..]) => {
            Command::Fail(rule(operations(ops)?, Fate::Errno(code(errno)?), rest)?)
        }
        ("lose", [errno, rest @ ..]) => {
            Command::Fail(rule(vec![Op::Fsync], Fate::Lose(code(errno)?), rest)?)
        }
        ("short-write", rest) => Command::Fail(rule(vec![Op::Write], Fate::Short, rest)?),
        ("full", [bytes]) => Command::Full {
            bytes: number(bytes)?,
        },
        ("slow", [micros]) => Command::Slow(slow(micros, "read,write,fsync")?),
        ("slow", [micros, ops]) => Command::Slow(slow(micros, ops)?),
        ("flip", [path, offset, bit]) => Command::Flip(Flip {
            path: (*path).to_owned(),
            offset: number(offset)?,
            bit: number(bit)? as u8 % 8,
        }),
        ("bad", [path, offset, len]) => Command::Bad(Bad {
            path: (*path).to_owned(),
            offset: number(offset)?,
            len: number(len)?,
        }),
        ("clear", []) => Command::Clear,
        ("stats", []) => Command::Stats,
        _ => return Err(format!("not understood: {line}\n{HELP}")),
    };
    Ok(command)
}

fn rule(ops: Vec<Op>, fate: Fate, rest: &[&str]) -> Result<Rule, String> {
    let (paths, left) = match rest {
        [] => (ALL_PATHS, None),
        [paths] => (*paths, None),
        [paths, count] => (*paths, Some(number(count)?)),
        _ => return Err("too many words".into()),
    };
    if left == Some(0) {
        return Err("a count of 0 is no rule".into());
    }
    Ok(Rule {
        ops,
        fate,
        paths: paths.to_owned(),
        left,
    })
}

fn slow(micros: &str, ops: &str) -> Result<Slow, String> {
    Ok(Slow {
        delay: Duration::from_micros(number(micros)?),
        ops: operations(ops)?,
    })
}

fn operations(words: &str) -> Result<Vec<Op>, String> {
    let mut ops = Vec::new();
    for word in words.split([',', '|']) {
        match word {
            "read" => ops.push(Op::Read),
            "write" => ops.push(Op::Write),
            "fsync" => ops.push(Op::Fsync),
            "meta" => ops.push(Op::Meta),
            "any" => ops.extend(ANY),
            _ => return Err(format!("{word} is none of read, write, fsync, meta, any")),
        }
    }
    Ok(ops)
}

fn code(errno: &str) -> Result<i32, String> {
    match errno {
        "EIO" => Ok(libc::EIO),
        "ENOSPC" => Ok(libc::ENOSPC),
        "EROFS" => Ok(libc::EROFS),
        _ => Err(format!("{errno} is none of EIO, ENOSPC, EROFS")),
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word} is no number"))
}
