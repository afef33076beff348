//! Power cuts at any moment of a recorded run: a trace is played event by event, at chosen events one of the states that
//! a cut may leave is written out as a directory, and somebody judges it.

pub mod content;
pub mod image;
pub mod judged_by;

use std::fs;
use std::io;
use std::path::Path;

use crate::trace::Event;

pub use image::{Image, State};

/// A state in a directory of its own, and what was promised before the cut.
pub struct Case<'a> {
    pub number: usize,
    /// Events before the cut.
    pub event: usize,
    pub image: &'a Image,
    /// What was written out.
    pub state: &'a State,
    /// Texts of all marks before the cut.
    pub marks: &'a [String],
}

/// Calls `judge` for `count` states, each written to `directory`, until it fails. The same seed makes the same states.
pub fn replay<E: From<io::Error>>(
    events: &[Event],
    count: usize,
    seed: u64,
    directory: &Path,
    mut judge: impl FnMut(&Case) -> Result<(), E>,
) -> Result<(), E> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut moments = moments(events, count, &mut random).into_iter().peekable();
    let mut image = Image::default();
    let mut marks = Vec::new();
    let mut number = 0;
    for at in 0..=events.len() {
        while moments.next_if_eq(&at).is_some() {
            let state = image.after_cut(&mut random);
            write_out(&state, directory)?;
            judge(&Case {
                number,
                event: at,
                image: &image,
                state: &state,
                marks: &marks,
            })?;
            number += 1;
        }
        if let Some(event) = events.get(at) {
            image.apply(event);
            if let Event::Mark(text) = event {
                marks.push(text.clone());
            }
        }
    }
    Ok(())
}

/// Where the power is cut, in order; several cuts at one moment leave different states.
fn moments(events: &[Event], count: usize, random: &mut fastrand::Rng) -> Vec<usize> {
    // Marks are most of a trace. Around everything else there is more to see.
    let work: Vec<usize> = events
        .iter()
        .enumerate()
        .filter(|(_, event)| !matches!(event, Event::Mark(_)))
        .map(|(at, _)| at)
        .collect();
    let pick = |random: &mut fastrand::Rng| match random.choice(&work) {
        Some(at) if random.u8(..4) > 0 => at + random.usize(..2),
        _ => random.usize(..=events.len()),
    };
    let mut moments: Vec<usize> = (0..count).map(|_| pick(random)).collect();
    moments.sort_unstable();
    moments
}

/// Makes a directory hold exactly this.
pub fn write_out(state: &State, directory: &Path) -> io::Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir_all(directory)?;
    for path in &state.directories {
        fs::create_dir_all(directory.join(path))?;
    }
    for (path, bytes) in &state.files {
        fs::write(directory.join(path), bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use crate::names::{Change, Id, Kind, Place, ROOT};

    fn trace() -> Vec<Event> {
        let id = Id(2);
        let mut events = vec![
            Event::Names(Change::Link {
                at: Place::new(ROOT, "log"),
                id,
                kind: Kind::File,
            }),
            Event::SyncDirectory { id: ROOT },
        ];
        for number in 0..20u64 {
            events.push(Event::Write {
                id,
                offset: number * 512,
                bytes: vec![number as u8; 512],
            });
            events.push(Event::Sync { id });
            events.push(Event::Mark(number.to_string()));
        }
        events
    }

    #[test]
    fn what_was_marked_after_its_sync_is_in_every_state() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let out = directory.path().join("state");
        let mut seen = Vec::new();
        let judged: io::Result<()> = replay(&trace(), 200, 1, &out, |case| {
            let log = fs::read(out.join("log")).unwrap_or_default();
            for mark in case.marks {
                let number: usize = mark.parse().expect("numbers only");
                assert_eq!(log[number * 512], number as u8);
            }
            seen.push((case.event, log.len()));
            Ok(())
        });
        judged.expect("room on the disk");
        assert_eq!(seen.len(), 200);
        let different: BTreeSet<_> = seen.iter().collect();
        assert!(different.len() > 40, "{} different states", different.len());
    }

    #[test]
    fn the_same_seed_makes_the_same_states() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let out = directory.path().join("state");
        let run = |seed| {
            let mut states = Vec::new();
            let judged: io::Result<()> = replay(&trace(), 50, seed, &out, |case| {
                states.push((case.event, fs::read(out.join("log")).ok()));
                Ok(())
            });
            judged.expect("room on the disk");
            states
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
    }
}
