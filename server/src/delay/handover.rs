//! How the timers come from RocketMQ and go back to it.
//!
//! A clean stop lays out what is parked as RocketMQ does: its timer log (`timerlog/`) names exactly these messages, and
//! `config/timercheck` says that all of the queue was read. So nothing is lost there and nothing is delivered that was
//! delivered here. While we run `timercheck` asks for more than that: a RocketMQ that gets the store after a crash delivers
//! again what it cannot know, and loses nothing.

use std::io;
use std::path::{Path, PathBuf};

use engine::{LogOffset, QueueOffset, ReadLimits};
use protocol::properties::{self, tag_hash};
use protocol::record::{View, views};
use reactor::{File, OpenOptions, fs};

use super::checkpoint::{self, Checkpoint};
use super::theirs::{self, Theirs};
use super::timed;
use super::timer::Timers;
use super::wheel_log::{Chunk, Unit, Wheel, WheelLog};
use crate::reading::{self, At};

const TIMER_LOG: &str = "timerlog";
/// Written at once.
const CHUNK_BYTES: usize = 1 << 20;
const STRETCH: ReadLimits = reading::stretch(1_024, 1 << 20);

/// Where a RocketMQ begins that gets the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaidOut {
    pub slot_ms: i64,
    pub queue_offset: u64,
}

/// At a start: from where the timers go on. From now on `timercheck` promises nothing that a crash could break. Blocks.
pub fn begin(
    root: &Path,
    timers_path: &Path,
    saved: Option<Checkpoint>,
    theirs: &Theirs,
) -> io::Result<Option<Checkpoint>> {
    let config_dir = root.join("config");
    let until = theirs.until().0;
    let was_theirs = saved
        .as_ref()
        .map_or(until > 0, |saved| saved.rocketmqs_until != until);
    if was_theirs {
        let now = Checkpoint {
            // The queue may have begun anew.
            first: 0,
            rocketmqs_until: until,
            laid_out: false,
            inherited: theirs.inherited(),
            // Not those that RocketMQ took.
            withdrawals: None,
            ..saved.unwrap_or_default()
        };
        checkpoint::write(timers_path, &now)?;
        theirs::write(&config_dir, 0, 0)?;
        return Ok(Some(now));
    }
    let timer_log = root.join(TIMER_LOG);
    let Some(mut saved) = saved else {
        return Ok(None);
    };
    if saved.laid_out || fs::exists(&timer_log) {
        theirs::write(&config_dir, saved.done_ms.max(0), saved.first)?;
        if fs::exists(&timer_log) {
            fs::remove_dir_all(&timer_log)?;
            fs::sync_dir(root)?;
        }
        saved.laid_out = false;
        checkpoint::write(timers_path, &saved)?;
    }
    Ok(Some(saved))
}

/// What `lay_out` has promised. Durable when it returns. Blocks.
pub fn end(root: &Path, laid_out: LaidOut) -> io::Result<()> {
    let LaidOut {
        slot_ms,
        queue_offset,
    } = laid_out;
    theirs::write(&root.join("config"), slot_ms, queue_offset)
}

/// One record of the timers' queue.
#[derive(Clone, Copy)]
struct Seen {
    offset: u64,
    unit: Unit,
}

impl Timers {
    /// For a stop, once the log is closed: writes what is parked as RocketMQ's timer log. What POP has left for RocketMQ
    /// (`pop::handback`) goes along from `popped_from` on. None: there never was a timer.
    pub async fn lay_out(
        &self,
        root: &Path,
        wheel: Wheel,
        popped_from: LogOffset,
    ) -> io::Result<Option<LaidOut>> {
        if self.queue().max_offset() == 0 {
            return Ok(None);
        }
        let (offsets, mut at, next) = {
            let parked = self.parked();
            (parked.offsets(), parked.first_offset(), parked.next())
        };
        let end = self.queue().max_offset();
        let mut log = WheelLog::new(wheel, reactor::wall_ms());
        let dir = root.join(TIMER_LOG);
        let mut last_seen = None;
        let mut last_added = None;
        let mut records = Vec::new();
        let mut parked = offsets.into_iter().peekable();
        while at < end {
            let place = QueueOffset(at);
            let read = reading::read(self.store(), self.queue(), place, &STRETCH, &mut records);
            let behind = match read.await? {
                At::Records(behind) => behind,
                At::End => break,
                At::Outside => {
                    at = self.queue().min_offset().clamp(at + 1, end);
                    continue;
                }
            };
            for view in views(&records) {
                let view = view.map_err(io::Error::other)?;
                while parked
                    .next_if(|&offset| offset < view.queue_offset)
                    .is_some()
                {}
                let is_parked = parked.next_if_eq(&view.queue_offset).is_some();
                let is_unread = view.queue_offset >= next;
                let seen = Seen {
                    offset: view.queue_offset,
                    unit: self.unit(&view, wheel.precision_ms),
                };
                last_seen = Some(seen);
                let is_wanted = match timed::is_revive(&view) {
                    true => view.log_offset >= popped_from.0,
                    false => is_parked || is_unread && self.theirs().due_ms(&view).is_some(),
                };
                if is_wanted {
                    log.add(&seen.unit);
                    last_added = Some(seen.offset);
                }
            }
            at = behind;
            if log.waiting_bytes() >= CHUNK_BYTES {
                write(&dir, wheel, log.take()).await?;
            }
        }
        if let Some(Seen { offset, unit }) = last_seen
            && last_added.is_some_and(|added| added < offset)
        {
            log.end_with(unit);
        }
        write(&dir, wheel, log.take()).await?;
        Ok(Some(LaidOut {
            slot_ms: log.first_slot_ms(),
            queue_offset: end,
        }))
    }

    fn unit(&self, view: &View<'_>, precision_ms: i64) -> Unit {
        let withdraws = timed::withdraws(view).is_some();
        let mut due_ms = self.theirs().due_ms(view).unwrap_or(0);
        if withdraws {
            due_ms = timed::withdrawal_ends_ms(due_ms, precision_ms);
        } else if timed::is_revive(view) {
            // Its time is given as RocketMQ gives it.
            due_ms = due_ms.saturating_add(precision_ms);
        }
        let topic = view.property(properties::REAL_TOPIC).unwrap_or_default();
        Unit {
            slot_ms: theirs::slot_ms(due_ms, precision_ms),
            place: LogOffset(view.log_offset),
            bytes: u32::try_from(view.bytes.len()).expect("records have 31 bits"),
            topic_hash: tag_hash(&String::from_utf8_lossy(topic)),
            withdraws,
        }
    }
}

async fn write(dir: &Path, wheel: Wheel, chunks: Vec<Chunk>) -> io::Result<()> {
    if chunks.is_empty() {
        return Ok(());
    }
    let dir = dir.to_owned();
    let written = reactor::offload("hand timers back", move || {
        fs::create_dir_all(&dir)?;
        for chunk in &chunks {
            write_chunk(dir.join(format!("{:020}", chunk.file)), wheel, chunk)?;
        }
        fs::sync_dir(&dir)
    });
    written.await
}

fn write_chunk(path: PathBuf, wheel: Wheel, chunk: &Chunk) -> io::Result<()> {
    let options = OpenOptions {
        read: true,
        write: true,
        create: true,
        ..OpenOptions::default()
    };
    let file = File::open(&path, options)?;
    // RocketMQ refuses files of another length.
    file.set_len(wheel.file_bytes)?;
    file.write_all_at_blocking(&chunk.bytes, chunk.at)?;
    file.sync_blocking()
}
