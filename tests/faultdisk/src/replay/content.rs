//! One file of a trace: what is durable, and every version of each sector that came after. Pure.

use std::collections::BTreeMap;

use crate::sector::{SECTOR_BYTES, Sector, overlap, touched};

/// The number of the event that made a version; later is larger.
pub type Moment = u64;

#[derive(Default)]
pub struct Content {
    durable: BTreeMap<u64, Box<Sector>>,
    durable_len: u64,
    pending: BTreeMap<u64, Vec<(Moment, Box<Sector>)>>,
    pending_lens: Vec<(Moment, u64)>,
}

/// Which version of something is on the disk: `None` the durable one, else the number among the pending ones.
pub type Choice = Option<usize>;

impl Content {
    pub fn live_len(&self) -> u64 {
        self.pending_lens
            .last()
            .map_or(self.durable_len, |(_, len)| *len)
    }

    pub fn write(&mut self, moment: Moment, offset: u64, bytes: &[u8]) {
        let len = bytes.len() as u64;
        self.change(moment, offset, len, |of_range| &bytes[of_range]);
        self.grow(moment, offset + len);
    }

    /// Bytes become zero as far as the file reaches.
    pub fn zero(&mut self, moment: Moment, offset: u64, len: u64) {
        const ZEROS: Sector = [0; SECTOR_BYTES as usize];
        let end = (offset + len).min(self.live_len());
        if offset < end {
            self.change(moment, offset, end - offset, |of_range| {
                &ZEROS[..of_range.len()]
            });
        }
    }

    pub fn set_len(&mut self, moment: Moment, len: u64) {
        let before = self.live_len();
        if len < before {
            self.zero(moment, len, before - len);
        }
        if len != before {
            self.pending_lens.push((moment, len));
        }
    }

    fn grow(&mut self, moment: Moment, len: u64) {
        if len > self.live_len() {
            self.pending_lens.push((moment, len));
        }
    }

    fn change<'a>(
        &mut self,
        moment: Moment,
        offset: u64,
        len: u64,
        bytes: impl Fn(std::ops::Range<usize>) -> &'a [u8],
    ) {
        for number in touched(offset, len) {
            let (within, of_range) = overlap(number, offset, len);
            let mut sector = Box::new(*self.live(number));
            sector[within].copy_from_slice(bytes(of_range));
            self.pending
                .entry(number)
                .or_default()
                .push((moment, sector));
        }
    }

    fn live(&self, number: u64) -> &Sector {
        let newest = self.pending.get(&number).and_then(|all| all.last());
        match newest {
            Some((_, sector)) => sector,
            None => self.durable(number),
        }
    }

    fn durable(&self, number: u64) -> &Sector {
        const ZEROS: &Sector = &[0; SECTOR_BYTES as usize];
        self.durable.get(&number).map_or(ZEROS, |sector| sector)
    }

    pub fn sync(&mut self) {
        for (number, mut versions) in std::mem::take(&mut self.pending) {
            let (_, newest) = versions.pop().expect("no list is empty");
            self.durable.insert(number, newest);
        }
        self.sync_len();
    }

    pub fn sync_len(&mut self) {
        self.durable_len = self.live_len();
        self.pending_lens.clear();
    }

    pub fn sync_range(&mut self, offset: u64, len: u64) {
        for number in touched(offset, len) {
            if let Some(mut versions) = self.pending.remove(&number) {
                let (_, newest) = versions.pop().expect("no list is empty");
                self.durable.insert(number, newest);
            }
        }
        if self.durable_len < offset + len {
            self.sync_len();
        }
    }

    /// The moments of everything unsynced.
    pub fn moments(&self) -> impl Iterator<Item = Moment> + '_ {
        let sectors = self.pending.values().flatten().map(|(moment, _)| *moment);
        sectors.chain(self.pending_lens.iter().map(|(moment, _)| *moment))
    }

    pub fn durable_bytes(&self) -> Vec<u8> {
        self.bytes(&mut |_| None)
    }

    /// The file as the disk may hold it. `choose` gets the moments of the unsynced versions, oldest first, and says which
    /// one is there; first for the length, then for each unsynced sector.
    pub fn bytes(&self, choose: &mut dyn FnMut(&[Moment]) -> Choice) -> Vec<u8> {
        let mut moments = Vec::new();
        let mut len = self.durable_len;
        if !self.pending_lens.is_empty() {
            moments.extend(self.pending_lens.iter().map(|(moment, _)| *moment));
            if let Some(at) = choose(&moments) {
                len = self.pending_lens[at].1;
            }
        }
        let mut bytes = vec![0; len as usize];
        for (number, sector) in &self.durable {
            put(&mut bytes, *number, sector);
        }
        for (number, versions) in &self.pending {
            moments.clear();
            moments.extend(versions.iter().map(|(moment, _)| *moment));
            if let Some(at) = choose(&moments) {
                put(&mut bytes, *number, &versions[at].1);
            }
        }
        bytes
    }
}

fn put(bytes: &mut [u8], number: u64, sector: &Sector) {
    let start = ((number * SECTOR_BYTES) as usize).min(bytes.len());
    let end = (start + sector.len()).min(bytes.len());
    bytes[start..end].copy_from_slice(&sector[..end - start]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(moments: &[Moment]) -> Choice {
        Some(moments.len() - 1)
    }

    #[test]
    fn every_version_since_the_sync_can_be_chosen() {
        let mut content = Content::default();
        content.write(1, 0, &[1; 512]);
        content.sync();
        content.write(2, 0, &[2; 10]);
        content.write(3, 5, &[3; 10]);
        let first = |choice: Choice| content.bytes(&mut |_| choice)[4..11].to_vec();
        assert_eq!(first(None), [1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(first(Some(0)), [2, 2, 2, 2, 2, 2, 1]);
        assert_eq!(first(Some(1)), [2, 3, 3, 3, 3, 3, 3]);
    }

    #[test]
    fn a_length_that_was_not_synced_may_be_missing_and_cuts_what_lies_behind_it() {
        let mut content = Content::default();
        content.write(1, 0, &[1; 100]);
        assert_eq!(content.bytes(&mut |_| None), [0u8; 0]);
        content.sync();
        content.write(2, 50, &[2; 1000]);
        let mut asked = 0;
        let bytes = content.bytes(&mut |moments| {
            asked += 1;
            if asked == 1 { None } else { newest(moments) }
        });
        assert_eq!(bytes, [[1; 50], [2; 50]].concat());
    }

    #[test]
    fn a_durable_range_leaves_the_rest_pending() {
        let mut content = Content::default();
        content.write(1, 0, &[1; 512]);
        content.write(2, 512, &[2; 512]);
        content.sync_range(512, 512);
        let expected = [[0; 512], [2; 512]].concat();
        assert_eq!(content.durable_bytes(), expected);
        assert_eq!(content.moments().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_truncated_and_grown_file_has_zeros_between() {
        let mut content = Content::default();
        content.write(1, 0, &[1; 1000]);
        content.set_len(2, 10);
        content.set_len(3, 1000);
        let live = content.bytes(&mut newest);
        assert_eq!(live.len(), 1000);
        assert_eq!(live[9..12], [1, 0, 0]);
    }
}
