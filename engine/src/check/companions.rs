//! The companions of a store, compared with what the log says they must be, and made again where asked.

use super::{CannotCheck, Repair, Report};
use crate::QueueNo;
use crate::key_index;
use crate::layout::{Companion, Layout, parse_companion};
use crate::queue::{Queue, Registry};
use crate::queue_index::active::ActiveIndex;
use crate::queue_index::companion::{Rebuilt, write_rebuilt};
use crate::queue_index::part::{BLOCK_BYTES, Header, Kind, Listed, check_block};
use crate::queue_index::sealed::{open_companion, read_directory};
use crate::queue_index::{ENTRY_BYTES, Entry};
use crate::recovery::files::FoundFile;
use crate::segment::{Medium, Segment};
use hashbrown::HashMap;
use reactor::{File, fs};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Blocks of entries are read this many at a time.
const READ_BLOCKS: u64 = 256;
const MAKES_IT: &str = "makes it again from the log";

/// See the module.
pub struct Companions {
    layout: Arc<Layout>,
    registry: Arc<Registry>,
    repair: bool,
}

/// What the log says of one segment.
pub struct Expected {
    pub log_file: PathBuf,
    pub index: ActiveIndex,
    pub base: u64,
    pub bytes: u64,
    /// Where the segment's records end.
    pub covered_to: u64,
    pub latest_ms: i64,
}

/// What was compared without a complaint.
struct Compared {
    to: u64,
    entries: u64,
    /// Queues of which the log has messages and the companion none.
    left_out: Vec<Arc<Queue>>,
}

/// A sealed index without the messages of some queues.
pub struct LeftOut {
    pub path: PathBuf,
    /// Of its segment.
    pub base: u64,
    pub queues: Vec<Arc<Queue>>,
}

impl Companions {
    pub fn new(layout: Arc<Layout>, registry: Arc<Registry>, repair: bool) -> Companions {
        Companions {
            layout,
            registry,
            repair,
        }
    }

    /// What lies in the companions' directory that has no segment.
    pub fn look_around(&self, files: &[FoundFile], report: &mut Report) -> Result<(), CannotCheck> {
        let dir = self.layout.companions();
        if !fs::exists(&dir) {
            report.note(
                &dir,
                None,
                "OrbitMQ never had this store; its indexes are made when it is opened",
            );
            return Ok(());
        }
        let unsynced = self.layout.unsynced();
        if fs::exists(&unsynced) {
            let what =
                "a sync failed; the next start compares what is in memory with what is on the disk";
            report.note(&unsynced, None, what);
        }
        for name in fs::list(&dir).map_err(CannotCheck::io(&dir))? {
            let of = match parse_companion(&name) {
                Companion::Unfinished => None,
                Companion::Sealed { base } | Companion::Part { base, .. } => Some(base),
                Companion::Other => continue,
            };
            let known = of.is_some_and(|base| files.iter().any(|file| file.base == base));
            if !known {
                let what = "left over; the next start removes it";
                report.note(&dir.join(&name), None, what);
            }
        }
        Ok(())
    }

    /// The sealed index and the key index of a full segment. Returns the queues whose messages the index leaves out:
    /// that is in order if they start anew later in the log.
    pub async fn sealed(&self, expected: &Expected, report: &mut Report) -> Option<LeftOut> {
        let path = self.layout.sealed(expected.base);
        let compared = self.compare(&path, expected, Kind::Sealed, expected.base);
        self.keys(expected, report).await;
        match compared {
            Ok(compared) => {
                report.companions += 1;
                report.entries += compared.entries;
                let (base, queues) = (expected.base, compared.left_out);
                (!queues.is_empty()).then_some(LeftOut { path, base, queues })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A broker that is stopped soon after its start leaves some to be made.
                let made = self.repair.then(|| self.make(&path, expected));
                let what = match made {
                    None => "this index is missing; the next start makes it".to_owned(),
                    Some(Ok(())) => "this index was missing and is made".to_owned(),
                    Some(Err(error)) => {
                        format!("this index is missing and cannot be made: {error}")
                    }
                };
                report.note(&path, None, what);
                None
            }
            Err(error) => {
                let repair = match self.repair.then(|| self.make(&path, expected)) {
                    None => Repair::Possible(MAKES_IT),
                    Some(Ok(())) => Repair::Done("made again from the log"),
                    Some(Err(_)) => {
                        Repair::Impossible("it cannot be written; the next start makes it")
                    }
                };
                report.problem(&path, None, error.to_string(), repair);
                None
            }
        }
    }

    /// An index that leaves out a queue's messages without a reason.
    pub fn report_left_out(&self, path: &Path, queue: &Queue, report: &mut Report) {
        let (topic, id) = (queue.topic(), queue.id());
        let what = format!("it has none of the messages of {topic}/{id}");
        let repair = self.remove(path, "removes it; the next start makes it again");
        report.problem(path, None, what, repair);
    }

    async fn keys(&self, expected: &Expected, report: &mut Report) {
        let path = key_index::check::path(&self.layout, expected.base);
        if !fs::exists(&path) {
            return; // It is made in the background, and not at once.
        }
        let verified = async {
            let (base, bytes) = (expected.base, expected.bytes);
            let segment = Segment::open(&expected.log_file, base, bytes, &Medium::Mapped)?;
            key_index::check::verify(&self.layout, &segment).await
        };
        match verified.await {
            Ok(entries) => {
                report.companions += 1;
                report.entries += entries;
            }
            Err(error) => {
                let repair = self.remove(&path, "removes it; the next start makes it again");
                report.problem(&path, None, error.to_string(), repair);
            }
        }
    }

    /// The parts of the segment that grows.
    pub fn parts(&self, expected: &Expected, report: &mut Report) {
        let mut from = expected.base;
        for number in 0.. {
            let path = self.layout.part(expected.base, number);
            match self.compare(&path, expected, Kind::Part, from) {
                Ok(compared) => {
                    report.companions += 1;
                    report.entries += compared.entries;
                    from = compared.to;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(error) => {
                    let how = "removes it; the next start reads the log instead";
                    let repair = self.remove(&path, how);
                    report.problem(&path, None, error.to_string(), repair);
                    return;
                }
            }
        }
    }

    fn remove(&self, path: &Path, how: &'static str) -> Repair {
        if !self.repair {
            return Repair::Possible(how);
        }
        match fs::remove_file(path) {
            Ok(()) => Repair::Done(how),
            Err(_) => Repair::Impossible("remove it by hand"),
        }
    }

    /// Every entry of a companion, both ways.
    fn compare(
        &self,
        path: &Path,
        expected: &Expected,
        kind: Kind,
        from: u64,
    ) -> io::Result<Compared> {
        let (file, header) = open_companion(path, expected.base)?;
        let head = &header.head;
        let to = match kind {
            Kind::Sealed => expected.covered_to,
            Kind::Part => head.to,
        };
        if head.kind != kind || (head.from, head.to) != (from, to) {
            return Err(wrong("it is of another stretch of the log"));
        }
        if to > expected.covered_to {
            return Err(wrong("it says more than is in the log"));
        }
        if head.segment_bytes != expected.bytes || head.base_ms != expected.index.base_ms() {
            return Err(wrong("it was made for another log"));
        }
        let directory = read_directory(&file, &header)?;
        let mut blocks = Blocks::new(&file, &header);
        let stretch = from - expected.base..to - expected.base;
        let mut found = Ok(());
        let mut messages: HashMap<QueueNo, u64> = HashMap::new();
        header.directory(&directory, |listed| {
            if found.is_ok() {
                let counted = self.queue(expected, &stretch, &listed, &mut blocks);
                found = counted.map(|(no, count)| {
                    messages.insert(no, count);
                });
            }
        })?;
        found?;
        let mut left_out = Vec::new();
        for queue in self.registry.sorted() {
            let in_log = count(&queue, expected, &stretch);
            let listed = messages.get(&queue.no()).copied().unwrap_or(0);
            if listed == 0 && in_log > 0 && kind == Kind::Sealed {
                left_out.push(queue);
            } else if listed != in_log {
                let (topic, id) = (queue.topic(), queue.id());
                return Err(wrong(&format!(
                    "it has {listed} messages of {topic}/{id}, the log has {in_log}"
                )));
            }
        }
        Ok(Compared {
            to,
            entries: header.entries,
            left_out,
        })
    }

    /// The entries of one queue. Returns how many of them are messages.
    fn queue(
        &self,
        expected: &Expected,
        stretch: &Range<u64>,
        listed: &Listed<'_>,
        blocks: &mut Blocks<'_>,
    ) -> io::Result<(QueueNo, u64)> {
        let mut messages = 0;
        let queue = self.registry.find_or_make(listed.topic, listed.id);
        let run = expected.index.run(queue.no());
        for offset in listed.first..listed.first + u64::from(listed.entries) {
            let entry = blocks.next()?;
            if entry.is_filler() {
                continue;
            }
            messages += 1;
            let in_log = run.and_then(|run| run.entry(offset));
            if in_log != Some(entry) || !stretch.contains(&u64::from(entry.position)) {
                let (topic, id) = (listed.topic, listed.id);
                return Err(wrong(&format!(
                    "offset {offset} of {topic}/{id} is not what the log has"
                )));
            }
        }
        let next = listed.first + u64::from(listed.entries);
        if run.is_none() && queue.max_offset() == 0 && queue.min_offset() == 0 {
            queue.start_at(next); // All its messages have expired.
        }
        Ok((queue.no(), messages))
    }

    fn make(&self, path: &Path, expected: &Expected) -> io::Result<()> {
        let queues = self.registry.sorted();
        let rows: Vec<Rebuilt<'_>> = queues
            .iter()
            .map(|queue| {
                let (topic, id, end) = (queue.topic(), queue.id(), queue.max_offset());
                let run = expected.index.run(queue.no());
                let first = run.map_or(end, |run| run.first());
                let entries = (end - first) as u32;
                Rebuilt {
                    listed: Listed {
                        topic,
                        id,
                        first,
                        entries,
                    },
                    run,
                }
            })
            .collect();
        let whole = expected.base..expected.base + expected.bytes;
        let base_ms = expected.index.base_ms();
        write_rebuilt(path, whole, base_ms, expected.latest_ms, &rows)
    }
}

/// How many messages of the queue the log has in the stretch.
fn count(queue: &Queue, expected: &Expected, stretch: &Range<u64>) -> u64 {
    let Some(run) = expected.index.run(queue.no()) else {
        return 0;
    };
    let entries = (run.first()..queue.max_offset()).map_while(|offset| run.entry(offset));
    let here =
        entries.filter(|entry| !entry.is_filler() && stretch.contains(&u64::from(entry.position)));
    here.count() as u64
}

/// The entries of a companion in order, each block checked.
struct Blocks<'a> {
    file: &'a File,
    at: u64,
    end: u64,
    number: u64,
    read: Vec<u8>,
    read_at: usize,
    entries: Vec<[u8; ENTRY_BYTES]>,
    next: usize,
}

impl<'a> Blocks<'a> {
    fn new(file: &'a File, header: &Header) -> Blocks<'a> {
        Blocks {
            file,
            at: header.blocks_at(),
            end: header.file_bytes(),
            number: 0,
            read: Vec::new(),
            read_at: 0,
            entries: Vec::new(),
            next: 0,
        }
    }

    fn next(&mut self) -> io::Result<Entry> {
        if self.next == self.entries.len() {
            self.block()?;
        }
        self.next += 1;
        Ok(Entry::decode(&self.entries[self.next - 1]))
    }

    fn block(&mut self) -> io::Result<()> {
        if self.read_at == self.read.len() {
            let bytes = (self.end - self.at).min(READ_BLOCKS * BLOCK_BYTES as u64);
            self.read.resize(bytes as usize, 0);
            self.file.read_exact_at_blocking(&mut self.read, self.at)?;
            self.at += bytes;
            self.read_at = 0;
        }
        let block = &self.read[self.read_at..];
        let entries = check_block(block, self.number)?;
        self.entries.clear();
        self.entries.extend_from_slice(entries);
        self.read_at += BLOCK_BYTES;
        self.number += 1;
        self.next = 0;
        Ok(())
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
