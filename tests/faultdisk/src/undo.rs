//! What a file on the live disk would be after a power cut: the bytes and the length that its unsynced changes
//! replaced. The new bytes are in the backing object already; this keeps the old ones. Pure logic: the owner reads
//! and writes the object.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use crate::sector::{SECTOR_BYTES, Sector, touched};

#[derive(Default)]
pub struct Undo {
    /// Durable content of each sector that was changed since.
    sectors: BTreeMap<u64, Box<Sector>>,
    /// The durable length, if the live one differs.
    len: Option<u64>,
}

/// What is to be written back to an object after a cut: its length first, then these sectors.
pub struct Rollback {
    pub len: u64,
    pub sectors: Vec<(u64, Box<Sector>)>,
}

impl Undo {
    pub fn is_empty(&self) -> bool {
        self.sectors.is_empty() && self.len.is_none()
    }

    pub fn unsynced_sectors(&self) -> usize {
        self.sectors.len()
    }

    /// Called before bytes change. `read` fills a buffer with the object's content from an offset; behind the end of
    /// the object there are zeros.
    pub fn before_change(
        &mut self,
        offset: u64,
        len: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        for run in self.runs_not_kept(touched(offset, len)) {
            let mut old = vec![0; ((run.end - run.start) * SECTOR_BYTES) as usize];
            read(run.start * SECTOR_BYTES, &mut old)?;
            for (number, bytes) in run.zip(old.chunks_exact(SECTOR_BYTES as usize)) {
                let sector: Sector = bytes.try_into().expect("chunks of this size");
                self.sectors.insert(number, Box::new(sector));
            }
        }
        Ok(())
    }

    /// Stretches of `range` whose durable content is not kept yet.
    fn runs_not_kept(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut runs = Vec::new();
        let mut next = range.start;
        for kept in self.sectors.range(range.clone()).map(|(number, _)| *number) {
            if next < kept {
                runs.push(next..kept);
            }
            next = kept + 1;
        }
        if next < range.end {
            runs.push(next..range.end);
        }
        runs
    }

    /// The length changed; `before` is what it was.
    pub fn len_changed(&mut self, before: u64) {
        self.len.get_or_insert(before);
    }

    /// Everything that was changed is durable.
    pub fn synced(&mut self) {
        self.sectors.clear();
        self.len = None;
    }

    /// These bytes are durable, and the length if they need it to be found. Nothing is said about others.
    pub fn range_synced(&mut self, offset: u64, len: u64) {
        for number in touched(offset, len) {
            self.sectors.remove(&number);
        }
        if self.len.is_some_and(|durable| durable < offset + len) {
            self.len = None;
        }
    }

    /// The length, and nothing else, is durable.
    pub fn len_synced(&mut self) {
        self.len = None;
    }

    /// The power is cut: `survives` is asked for the length and for each sector whether the new one reached the disk.
    /// Everything left is durable afterwards.
    pub fn cut(&mut self, live_len: u64, mut survives: impl FnMut() -> bool) -> Rollback {
        let len = match self.len.take() {
            Some(durable) if !survives() => durable,
            _ => live_len,
        };
        let sectors = std::mem::take(&mut self.sectors);
        let lost = sectors.into_iter().filter(|_| !survives()).collect();
        Rollback { len, sectors: lost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in memory whose changes go through an `Undo`.
    #[derive(Default)]
    struct Live {
        bytes: Vec<u8>,
        undo: Undo,
    }

    impl Live {
        fn write(&mut self, offset: usize, byte: u8, len: usize) {
            let bytes = &self.bytes;
            let read = |at: u64, into: &mut [u8]| {
                for (number, to) in into.iter_mut().enumerate() {
                    *to = bytes.get(at as usize + number).copied().unwrap_or(0);
                }
                Ok(())
            };
            let kept = self.undo.before_change(offset as u64, len as u64, read);
            kept.expect("memory can be read");
            if self.bytes.len() < offset + len {
                self.undo.len_changed(self.bytes.len() as u64);
                self.bytes.resize(offset + len, 0);
            }
            self.bytes[offset..offset + len].fill(byte);
        }

        fn cut(&mut self, survives: impl FnMut() -> bool) {
            let back = self.undo.cut(self.bytes.len() as u64, survives);
            self.bytes.resize(back.len as usize, 0);
            for (number, sector) in back.sectors {
                let start = (number * SECTOR_BYTES) as usize;
                let end = (start + SECTOR_BYTES as usize).min(self.bytes.len());
                if start < end {
                    self.bytes[start..end].copy_from_slice(&sector[..end - start]);
                }
            }
        }
    }

    #[test]
    fn a_cut_brings_back_what_was_last_synced() {
        let mut live = Live::default();
        live.write(0, 1, 3000);
        live.undo.synced();
        live.write(100, 2, 10);
        live.write(100, 3, 2000);
        live.write(2900, 4, 5000);
        live.cut(|| false);
        assert_eq!(live.bytes, [1; 3000]);
        assert!(live.undo.is_empty());
    }

    #[test]
    fn a_durable_write_says_nothing_about_an_earlier_one() {
        let mut live = Live::default();
        live.write(0, 1, 1024);
        live.write(1024, 2, 512);
        live.undo.range_synced(1024, 512);
        live.cut(|| false);
        assert_eq!(live.bytes[..1024], [0; 1024]);
        assert_eq!(live.bytes[1024..], [2; 512]);
    }

    #[test]
    fn each_sector_survives_by_itself() {
        let mut live = Live::default();
        live.write(0, 1, 2048);
        live.undo.synced();
        live.write(0, 2, 2048);
        let mut asked = 0;
        live.cut(|| {
            asked += 1;
            asked % 2 == 0
        });
        let first_of_each: Vec<u8> = live.bytes.chunks(512).map(|sector| sector[0]).collect();
        assert_eq!((asked, first_of_each), (4, vec![1, 2, 1, 2]));
    }

    #[test]
    fn with_everything_surviving_a_cut_changes_nothing() {
        let mut live = Live::default();
        live.write(10, 7, 700);
        let before = live.bytes.clone();
        live.cut(|| true);
        assert_eq!(live.bytes, before);
    }
}
