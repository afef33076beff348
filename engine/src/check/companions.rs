//! The companions of a store, compared with what the log says they must be, and made again where asked.

use super::{CannotCheck, Repair, Report};
use crate::key_index;
use crate::layout::{Companion, Layout, parse_companion};
use crate::queue::Registry;
use crate::queue_index::active::ActiveIndex;
use crate::queue_index::companion::{Rebuilt, write_rebuilt};
use crate::queue_index::part::{BLOCK_BYTES, Header, Kind, Listed, check_block};
use crate::queue_index::sealed::{open_companion, read_directory};
use crate::queue_index::{ENTRY_BYTES, Entry};
use crate::recovery::files::FoundFile;
use crate::segment::{Medium, Segment};
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

    /// The sealed index and the key index of a full segment.
    pub async fn sealed(&self, expected: &Expected, report: &mut Report) {
        let path = self.layout.sealed(expected.base);
        let has_parts = fs::exists(&self.layout.part(expected.base, 0));
        let problem = match self.compare(&path, expected, Kind::Sealed, expected.base) {
            Ok(compared) => {
                report.companions += 1;
                report.entries += compared.entries;
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let usual = has_parts || !report.closed || report.rocketmqs;
                if usual && !self.repair {
                    report.note(
                        &path,
                        None,
                        "this index is missing; the next start makes it",
                    );
                    None
                } else {
                    Some("this index is missing".to_owned())
                }
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(what) = problem {
            let repair = match self.repair.then(|| self.make(&path, expected)) {
                None => Repair::Possible(MAKES_IT),
                Some(Ok(())) => Repair::Done("made again from the log"),
                Some(Err(error)) => {
                    report.note(&path, None, format!("cannot be written: {error}"));
                    Repair::Impossible("the next start makes it again")
                }
            };
            report.problem(&path, None, what, repair);
        }
        self.keys(expected, report).await;
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
        let mut real = 0;
        header.directory(&directory, |listed| {
            if found.is_ok() {
                found = self.queue(expected, &stretch, &listed, &mut blocks, &mut real);
            }
        })?;
        found?;
        let in_log = self.count(expected, &stretch);
        if in_log != real {
            return Err(wrong(&format!(
                "it has {real} messages, the log has {in_log}"
            )));
        }
        Ok(Compared {
            to,
            entries: header.entries,
        })
    }

    /// The entries of one queue; `real` counts those that are no fillers.
    fn queue(
        &self,
        expected: &Expected,
        stretch: &Range<u64>,
        listed: &Listed<'_>,
        blocks: &mut Blocks<'_>,
        real: &mut u64,
    ) -> io::Result<()> {
        let queue = self.registry.find_or_make(listed.topic, listed.id);
        let run = expected.index.run(queue.no());
        for offset in listed.first..listed.first + u64::from(listed.entries) {
            let entry = blocks.next()?;
            if entry.is_filler() {
                continue;
            }
            *real += 1;
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
        Ok(())
    }

    /// How many messages the log has in the stretch.
    fn count(&self, expected: &Expected, stretch: &Range<u64>) -> u64 {
        let queues = self.registry.sorted();
        let of_queue = |queue: &Arc<crate::queue::Queue>| -> u64 {
            let Some(run) = expected.index.run(queue.no()) else {
                return 0;
            };
            let entries = (run.first()..queue.max_offset()).map_while(|offset| run.entry(offset));
            let here = entries
                .filter(|entry| !entry.is_filler() && stretch.contains(&u64::from(entry.position)));
            here.count() as u64
        };
        queues.iter().map(of_queue).sum()
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
