//! Where in the log something was found damaged and passed over: messages are missing there, so that queues go on behind
//! a gap.
//!
//! ```text
//! <first log offset> <behind the last> <end of the log when it was found>
//! ```
//!
//! Indexes that are made again need to know: elsewhere in a log of ours, a gap means that something was read wrongly.
//! What comes behind the third offset was appended afterwards, and has no gap. The file is a help: without it such an
//! index is not made.

use crate::layout::Layout;
use reactor::fs;
use std::io;
use std::ops::Range;

/// More stretches are remembered as one that holds them all.
const STRETCHES_MAX: usize = 256;

/// One stretch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub range: Range<u64>,
    /// No gap begins behind it.
    pub until: u64,
}

/// What is known of the log from `first` on. Blocks.
pub fn known(layout: &Layout, first: u64) -> io::Result<Vec<Damage>> {
    match fs::read(&layout.damaged()) {
        Ok(bytes) => Ok(parse(&bytes, first)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Adds what was found, and forgets what lies below `first`. Blocks.
pub fn note(layout: &Layout, first: u64, found: &[Range<u64>], until: u64) -> io::Result<()> {
    let mut all = known(layout, first)?;
    let before = all.clone();
    for range in found {
        match all.iter_mut().find(|known| known.range == *range) {
            Some(known) => known.until = known.until.max(until),
            None => all.push(Damage {
                range: range.clone(),
                until,
            }),
        }
    }
    if all.len() > STRETCHES_MAX {
        let whole = all.into_iter().reduce(|one, other| Damage {
            range: one.range.start.min(other.range.start)..one.range.end.max(other.range.end),
            until: one.until.max(other.until),
        });
        all = whole.into_iter().collect();
    }
    if all == before {
        return Ok(());
    }
    let lines = all.iter().map(|damage| {
        let Range { start, end } = damage.range;
        format!("{start} {end} {}\n", damage.until)
    });
    fs::replace(&layout.damaged(), lines.collect::<String>().as_bytes())
}

fn parse(bytes: &[u8], first: u64) -> Vec<Damage> {
    let text = String::from_utf8_lossy(bytes);
    let parsed = text.lines().filter_map(|line| {
        let mut numbers = line.split(' ').map(|word| word.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Damage {
            range: next()?..next()?,
            until: next()?,
        })
    });
    parsed.filter(|damage| damage.range.end > first).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::slice;

    #[test]
    fn stretches_are_remembered_once_and_as_long_as_the_log_has_them() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = Layout::new(&Config::for_root(dir.path()));
        std::fs::create_dir_all(layout.companions()).expect("a temporary directory");
        assert_eq!(known(&layout, 0).expect("nothing yet"), []);
        note(&layout, 0, &[10..20, 4_096..5_000], 9_000).expect("a temporary directory");
        let again = 10..20;
        note(&layout, 0, slice::from_ref(&again), 8_000).expect("a temporary directory");
        let one = |range, until| Damage { range, until };
        let both = [one(10..20, 9_000), one(4_096..5_000, 9_000)];
        assert_eq!(known(&layout, 0).expect("just noted"), both);
        assert_eq!(known(&layout, 4_096).expect("just noted"), both[1..]);
        let many: Vec<Range<u64>> = (0..300).map(|n| n * 1_000..n * 1_000 + 1).collect();
        note(&layout, 4_096, &many, 300_000).expect("a temporary directory");
        let all = known(&layout, 0).expect("just noted");
        assert_eq!(all, [one(0..299_001, 300_000)]);
    }
}
