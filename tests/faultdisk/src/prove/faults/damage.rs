//! Damage under what is read: the range errs, never wrong bytes, and everything else is served.

use std::collections::BTreeSet;

use crate::client::{Client, Message};
use crate::ensure;
use crate::error::{Error, Result};
use crate::prove::stage::{QUEUES, Stage, TOPIC};

/// Several segments.
const MESSAGES: u64 = 10_000;
/// How far around the damage others may be unreadable: what is read in one piece.
const REACH_BYTES: u64 = 1 << 20;
const FIRST_SEGMENT: &str = "store/commitlog/00000000000000000000";
const FOUND: i32 = 0;

pub fn bad_block(stage: &mut Stage, _seed: u64) -> Result<String> {
    damaged(stage, |stage, victim| {
        let at = victim.log_offset;
        stage.disk.ask(&format!("bad {FIRST_SEGMENT} {at} 600"))
    })
}

pub fn flipped_bits(stage: &mut Stage, seed: u64) -> Result<String> {
    let bit = seed % 8;
    damaged(stage, |stage, victim| {
        // Bodies may be short, and what lies behind them has no checksum in RocketMQ's records.
        let at = victim.body_at;
        stage.disk.ask(&format!("flip {FIRST_SEGMENT} {at} {bit}"))
    })
}

fn damaged(
    stage: &mut Stage,
    damage: impl FnOnce(&mut Stage, &Message) -> Result<String>,
) -> Result<String> {
    stage.fill(MESSAGES)?;
    // After a clean restart nothing old is in the broker's memory, and nothing old is read again.
    stage.stop()?;
    stage.start()?;
    let all = every_message(stage)?;
    let victim = *all
        .iter()
        .flat_map(|(_, messages)| messages)
        .filter(|message| message.log_offset > REACH_BYTES)
        .min_by_key(|message| message.log_offset)
        .ok_or_else(|| Error::Wrong("the log is too short".into()))?;
    stage.stop()?;
    stage.start()?;
    damage(stage, &victim)?;
    let mut missing = BTreeSet::new();
    let mut answers = BTreeSet::new();
    for (queue, messages) in &all {
        let mut client = stage.client()?;
        read_around(&mut client, *queue, messages, &mut missing, &mut answers)?;
    }
    ensure!(stage.is_alive(), "the broker died of it");
    ensure!(
        missing.contains(&victim.log_offset),
        "the damaged message was served as if nothing had happened"
    );
    let far = missing
        .iter()
        .find(|at| at.abs_diff(victim.log_offset) > REACH_BYTES);
    ensure!(
        far.is_none(),
        "{far:?} cannot be read because of damage at {}",
        victim.log_offset
    );
    let accepted = stage.until_accepted()?;
    stage.disk.ask("clear")?;
    let counts = stage.read_back()?;
    Ok(format!(
        "{} of {} messages unreadable ({answers:?}), sends accepted in {} ms, all {} served once repaired",
        missing.len(),
        all.iter()
            .map(|(_, messages)| messages.len())
            .sum::<usize>(),
        accepted.as_millis(),
        counts.promised
    ))
}

fn every_message(stage: &mut Stage) -> Result<Vec<(u32, Vec<Message>)>> {
    let mut client = stage.client()?;
    let mut all = Vec::new();
    for queue in 0..QUEUES {
        let mut messages: Vec<Message> = Vec::new();
        loop {
            let pulled = client.pull(TOPIC, queue, messages.len() as u64)?;
            if pulled.code != FOUND {
                break;
            }
            messages.extend(pulled.messages);
        }
        all.push((queue, messages));
    }
    Ok(all)
}

/// Reads a queue, stepping over what cannot be read as a consumer would that skips it.
fn read_around(
    client: &mut Client,
    queue: u32,
    expected: &[Message],
    missing: &mut BTreeSet<u64>,
    answers: &mut BTreeSet<String>,
) -> Result<()> {
    let mut next = 0;
    while let Some(wanted) = expected.get(next as usize) {
        let pulled = client
            .pull(TOPIC, queue, next)
            .map_err(Error::io(format!("pulling queue {queue} at {next}")))?;
        let served = match pulled.code {
            FOUND => pulled.messages,
            code => {
                answers.insert(format!("{code} {}", pulled.remark));
                Vec::new()
            }
        };
        if served.first().is_none_or(|first| first.queue_offset > next) {
            missing.insert(wanted.log_offset);
            next += 1;
            continue;
        }
        for message in served {
            let wanted = expected.get(message.queue_offset as usize);
            ensure!(
                wanted.is_none_or(|wanted| *wanted == message),
                "WRONG BYTES: {message:?} instead of {wanted:?}"
            );
            for skipped in next..message.queue_offset {
                missing.insert(expected[skipped as usize].log_offset);
            }
            next = message.queue_offset + 1;
        }
    }
    Ok(())
}
