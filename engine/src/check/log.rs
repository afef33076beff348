//! Reading every record of every segment, and making from them what the companions must say.

use super::companions::{Companions, Expected, LeftOut};
use super::{CannotCheck, Repair, Report};
use crate::QueueNo;
use crate::dispatch::Dispatched;
use crate::queue::{Queue, Registry};
use crate::queue_index::Entry;
use crate::queue_index::active::ActiveIndex;
use crate::recovery::Progress;
use crate::recovery::files::FoundFile;
use crate::recovery::indexing::{Doubts, Indexing, Message, Place, Rules};
use crate::recovery::walk::{self, Step, Walk};
use hashbrown::HashMap;
use protocol::record;
use reactor::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Bytes are searched for a sign of life at the start of a file only.
const START_BYTES: usize = 4096;

/// See the module.
pub struct LogCheck<'a> {
    registry: Arc<Registry>,
    files: &'a [FoundFile],
    /// Below this log offset queues may have gaps and start anew.
    rocketmqs_until: u64,
    companions: &'a Companions,
    /// The newest file that anything was written to.
    last: usize,
    /// Where in the log a queue began anew, the last time.
    anew: HashMap<QueueNo, u64>,
    left_out: Vec<LeftOut>,
    /// Bytes that do not count were met: behind them queues may have gaps.
    met_damage: bool,
}

/// How the reading of a segment ended.
enum Ended {
    Full,
    /// Nothing more was found from this position on.
    At(u64, &'static str),
}

impl<'a> LogCheck<'a> {
    pub fn new(
        registry: Arc<Registry>,
        files: &'a [FoundFile],
        rocketmqs_until: u64,
        companions: &'a Companions,
    ) -> LogCheck<'a> {
        LogCheck {
            registry,
            files,
            rocketmqs_until,
            companions,
            last: 0,
            anew: HashMap::new(),
            left_out: Vec::new(),
            met_damage: false,
        }
    }

    pub async fn run(
        &mut self,
        report: &mut Report,
        progress: &mut impl FnMut(Progress),
    ) -> Result<(), CannotCheck> {
        self.last = self.find_last()?;
        report.first = self.files.first().map_or(0, |file| file.base);
        report.end = report.first;
        let total_bytes = self.files.iter().map(|file| file.bytes).sum();
        let files = self.files;
        for (number, found) in files.iter().enumerate() {
            let file = Arc::new(open(&found.path).map_err(CannotCheck::io(&found.path))?);
            let checked = if number <= self.last {
                self.segment(number, found, file, report).await
            } else {
                unused(found, file, report).await
            };
            if let Err(error) = checked {
                let advice = "the disk may be failing; copy what can be read";
                let what = format!("cannot be read: {error}");
                report.problem(&found.path, None, what, Repair::Impossible(advice));
            }
            report.log_bytes_read += found.bytes;
            progress(Progress {
                read_bytes: report.log_bytes_read,
                total_bytes,
            });
        }
        for left_out in &self.left_out {
            for queue in &left_out.queues {
                let anew = self.anew.get(&queue.no());
                if anew.is_none_or(|at| *at < left_out.base) {
                    self.companions
                        .report_left_out(&left_out.path, queue, report);
                }
            }
        }
        Ok(())
    }

    async fn segment(
        &mut self,
        number: usize,
        found: &FoundFile,
        file: Arc<File>,
        report: &mut Report,
    ) -> io::Result<()> {
        let mut expected = Expected {
            log_file: found.path.clone(),
            index: ActiveIndex::new(found.base),
            base: found.base,
            bytes: found.bytes,
            covered_to: found.base,
            latest_ms: 0,
        };
        let mut walk = Walk::new(file, found.base, found.bytes, 0);
        let ended = self
            .records(number, found, &mut walk, &mut expected, report)
            .await?;
        match ended {
            Ended::Full => {
                report.end = found.base + found.bytes;
                expected.covered_to = report.end;
                let left_out = self.companions.sealed(&expected, report).await;
                self.left_out.extend(left_out);
            }
            Ended::At(position, why) => {
                report.end = found.base + position;
                expected.covered_to = report.end;
                self.behind_end(number, found, &mut walk, position, why, report)
                    .await?;
                self.companions.parts(&expected, report);
            }
        }
        Ok(())
    }

    /// Reads the records to the blank, or to where nothing more is found.
    async fn records(
        &mut self,
        number: usize,
        found: &FoundFile,
        walk: &mut Walk,
        expected: &mut Expected,
        report: &mut Report,
    ) -> io::Result<Ended> {
        let (mut indexing, mut doubts) = (Indexing::default(), Doubts::default());
        loop {
            let (position, why) = match walk.next().await? {
                Step::Full => {
                    expected.latest_ms = indexing.latest_ms();
                    self.finish(found, doubts, expected, report);
                    return Ok(Ended::Full);
                }
                Step::Record(record) => {
                    let position = record.position;
                    let entry = record
                        .view
                        .and_then(|view| indexing.entry(&expected.index, position, &view));
                    match entry {
                        Ok(entry) => {
                            report.records += 1;
                            if let Some((to, entry)) = entry {
                                self.message(found, &to, entry, expected, &mut doubts, report);
                            }
                            continue;
                        }
                        Err(why) => (position, why),
                    }
                }
                Step::End(why) => (walk.position(), why),
            };
            expected.latest_ms = indexing.latest_ms();
            walk.go_to(position);
            if !walk.find_next_record().await? {
                self.finish(found, doubts, expected, report);
                self.met_damage |= number < self.last;
                return Ok(Ended::At(position, why));
            }
            self.met_damage = true;
            let next = walk.position();
            let what = format!("{why}; the next record is at {next}");
            if number == self.last && !report.closed {
                let what = format!("{what}; the next start cuts the log here");
                report.note(&found.path, Some(position), what);
            } else {
                const ADVICE: &str = "the messages between are lost, unless another copy has them";
                let repair = Repair::Impossible(ADVICE);
                report.problem(&found.path, Some(position), what, repair);
            }
        }
    }

    fn message(
        &mut self,
        found: &FoundFile,
        to: &Dispatched<'_>,
        entry: Entry,
        expected: &Expected,
        doubts: &mut Doubts,
        report: &mut Report,
    ) {
        report.messages += 1;
        let message = Message {
            queue: self.queue(to),
            queue_offset: to.queue_offset,
            entry,
        };
        let rules = self.rules(found, entry);
        let (next, left_out) = (message.queue.max_offset(), doubts.left_out());
        let settled = doubts.settle(next, message, rules);
        if doubts.left_out() > left_out {
            let what = format!(
                "{}/{}: around offset {next} a message's queue offset cannot be right; it is left out",
                to.topic, to.queue_id
            );
            self.report(found, entry, what, report);
        }
        for message in settled.into_iter().flatten().flatten() {
            self.list(found, &message, expected, report);
        }
    }

    /// What holds at the place of an entry. A gap in a log of ours is reported; the entries behind it count.
    fn rules(&self, found: &FoundFile, entry: Entry) -> Rules {
        match found.base + u64::from(entry.position) < self.rocketmqs_until {
            true => Rules::RocketMqs,
            false => Rules::Gaps,
        }
    }

    fn finish(
        &mut self,
        found: &FoundFile,
        mut doubts: Doubts,
        expected: &Expected,
        report: &mut Report,
    ) {
        for message in doubts.finish(Queue::max_offset) {
            self.list(found, &message, expected, report);
        }
    }

    fn list(
        &mut self,
        found: &FoundFile,
        message: &Message,
        expected: &Expected,
        report: &mut Report,
    ) {
        let (queue, offset) = (&message.queue, message.queue_offset);
        let next = queue.max_offset();
        let place = Place::of(next, offset);
        if place != Place::Follows {
            let what = format!(
                "offset {offset} of {}/{} where {next} was expected",
                queue.topic(),
                queue.id()
            );
            self.report(found, message.entry, what, report);
        }
        if place == Place::Anew {
            queue.start_at(offset);
            let at = found.base + u64::from(message.entry.position);
            self.anew.insert(queue.no(), at);
        }
        expected
            .index
            .append_anywhere(queue.no(), next, offset, message.entry);
        queue.store_max(offset + 1);
    }

    /// A queue with a gap or another beginning. What comes of damage was reported with that.
    fn report(&self, found: &FoundFile, entry: Entry, what: String, report: &mut Report) {
        let at = Some(u64::from(entry.position));
        if self.rules(found, entry) == Rules::RocketMqs || self.met_damage {
            report.note(&found.path, at, what);
        } else {
            const ADVICE: &str = "messages between are lost, unless another copy has them";
            report.problem(&found.path, at, what, Repair::Impossible(ADVICE));
        }
    }

    fn queue(&self, to: &Dispatched<'_>) -> Arc<Queue> {
        if let Some(queue) = self.registry.find(to.topic, to.queue_id) {
            return queue;
        }
        let queue = self.registry.find_or_make(to.topic, to.queue_id);
        queue.start_at(to.queue_offset);
        queue
    }

    /// What lies behind the last record of a segment that is not full.
    async fn behind_end(
        &self,
        number: usize,
        found: &FoundFile,
        walk: &mut Walk,
        position: u64,
        why: &'static str,
        report: &mut Report,
    ) -> io::Result<()> {
        if number < self.last {
            const ADVICE: &str =
                "what was in the rest of the file is lost, unless another copy has it";
            let repair = Repair::Impossible(ADVICE);
            let what = format!("the log goes on in the next file, but here is: {why}");
            report.problem(&found.path, Some(position), what, repair);
            return Ok(());
        }
        walk.go_to(position);
        let Some(at) = walk.find_not_zero().await? else {
            return Ok(());
        };
        let what = match why {
            walk::NOTHING_MORE => "something is written behind the end of the log",
            why => why,
        };
        if report.closed {
            let what = format!("{what}, although the store was closed in order");
            const ADVICE: &str = "the next start cuts the log here";
            report.problem(&found.path, Some(at), what, Repair::Impossible(ADVICE));
        } else {
            let what = format!("{what}; the next start cuts the log here");
            report.note(&found.path, Some(at), what);
        }
        Ok(())
    }

    fn find_last(&self) -> Result<usize, CannotCheck> {
        for (number, found) in self.files.iter().enumerate().rev() {
            let file = open(&found.path).map_err(CannotCheck::io(&found.path))?;
            let mut start = [0; START_BYTES];
            let read = file.read_exact_at_blocking(&mut start, 0);
            // What cannot be read is reported when it is its turn.
            if read.is_err() || start[..record::HEADER_BYTES] != [0; record::HEADER_BYTES] {
                return Ok(number);
            }
        }
        Ok(0)
    }
}

/// A file prepared for what comes next has to be empty.
async fn unused(found: &FoundFile, file: Arc<File>, report: &mut Report) -> io::Result<()> {
    let mut walk = Walk::new(file, found.base, found.bytes, 0);
    if let Some(at) = walk.find_not_zero().await? {
        let what =
            "something is written behind the end of the log; the next start removes this file";
        report.note(&found.path, Some(at), what);
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    let options = OpenOptions {
        read: true,
        ..OpenOptions::default()
    };
    File::open(path, options)
}
