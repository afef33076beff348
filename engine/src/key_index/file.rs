//! A file of entries: a run of a growing segment, or all of a full one. Both have one format.
//!
//! ```text
//! block 0       header, 128 bytes that end with their crc32c; zeros
//! level 0       all entries, sorted, 255 to a block
//! level 1       the first entry of every block of level 0
//! ...           and so on, until a level has one block
//! ```
//!
//! Blocks have 4096 bytes: entries, crc32c of them and of the block's number in the file, 12 zero bytes. Where the levels
//! begin follows from the number of entries. A lookup reads a block of each level below the topmost, which is kept.

use super::entry::{ENTRY_BYTES, Entry};
use crate::queue_index::part::{
    BLOCK_BYTES, BLOCK_CRC_AT, BLOCK_ENTRIES, Damage, block_crc, check_block,
};
use reactor::{Buffer, File, OpenOptions};
use std::io;
use std::path::Path;

const MAGIC: [u8; 8] = *b"ORBITKY1";
const HEADER_BYTES: usize = 128;
const HEADER_CRC_AT: usize = HEADER_BYTES - 4;
const _: () = assert!(ENTRY_BYTES * BLOCK_ENTRIES == BLOCK_CRC_AT);
/// More entries than the smallest records can have keys.
const ENTRIES_MAX: u64 = 1 << 32;

/// What a file says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub segment_base: u64,
    pub segment_bytes: u64,
    /// The file has the entries of the records in `from..to`, log offsets.
    pub from: u64,
    pub to: u64,
    /// Store time of the segment's first record; the entries' deltas count from it.
    pub base_ms: i64,
    /// Store times of the first and the last record in `from..to`.
    pub first_ms: i64,
    pub last_ms: i64,
    pub entries: u64,
}

impl Head {
    /// Whether the file is the key index of a full segment.
    pub fn is_sealed(&self) -> bool {
        self.from == self.segment_base && self.to == self.segment_base + self.segment_bytes
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let words = [
            u64::from_le_bytes(MAGIC),
            self.segment_base,
            self.segment_bytes,
            self.from,
            self.to,
            self.base_ms as u64,
            self.first_ms as u64,
            self.last_ms as u64,
            self.entries,
        ];
        for (field, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *field = word.to_le_bytes();
        }
        let crc = crc32c::crc32c(&bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header at the start of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Head, Damage> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(Damage::Short)?;
        let word = |n: usize| u64::from_le_bytes(bytes.as_chunks().0[n]);
        if word(0) != u64::from_le_bytes(MAGIC) {
            return Err(Damage::Magic);
        }
        let crc = crc32c::crc32c(&bytes[..HEADER_CRC_AT]);
        if bytes[HEADER_CRC_AT..] != crc.to_le_bytes() {
            return Err(Damage::Header);
        }
        let head = Head {
            segment_base: word(1),
            segment_bytes: word(2),
            from: word(3),
            to: word(4),
            base_ms: word(5) as i64,
            first_ms: word(6) as i64,
            last_ms: word(7) as i64,
            entries: word(8),
        };
        let inside = head.segment_base <= head.from
            && head.from <= head.to
            && head.to - head.segment_base <= head.segment_bytes;
        if !inside || head.entries > ENTRIES_MAX {
            return Err(Damage::Header);
        }
        Ok(head)
    }

    /// Length of the whole file.
    pub fn file_bytes(&self) -> u64 {
        let blocks: u64 = levels(self.entries).iter().sum();
        (1 + blocks) * BLOCK_BYTES as u64
    }
}

/// How many blocks each level has, the entries' own first.
fn levels(entries: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    let mut blocks = entries.div_ceil(BLOCK_ENTRIES as u64);
    while blocks > 1 {
        levels.push(blocks);
        blocks = blocks.div_ceil(BLOCK_ENTRIES as u64);
    }
    levels.extend((blocks > 0).then_some(1));
    levels
}

/// Lays entries into blocks, then the levels above them.
#[derive(Default)]
pub struct Encoder {
    bytes: Vec<u8>,
    in_block: usize,
    /// Blocks begun, the header's not among them.
    blocks: u64,
    /// The first entry of each block of the level being laid.
    firsts: Vec<Entry>,
    entries: u64,
}

impl Encoder {
    pub fn push(&mut self, entry: Entry) {
        if self.in_block == 0 {
            self.firsts.push(entry);
            self.blocks += 1;
        }
        self.bytes.extend_from_slice(&entry.encode());
        self.in_block += 1;
        self.entries += 1;
        if self.in_block == BLOCK_ENTRIES {
            self.close_block();
        }
    }

    /// How many bytes there are to take.
    pub fn ready(&self) -> usize {
        self.bytes.len() - self.in_block * ENTRY_BYTES
    }

    /// Moves out the complete blocks, which follow those taken before.
    pub fn take(&mut self) -> Buffer {
        let ready = self.ready();
        let mut buffer = Buffer::with_capacity(ready);
        buffer.set_len(ready);
        buffer.copy_from_slice(&self.bytes[..ready]);
        self.bytes.drain(..ready);
        buffer
    }

    /// Adds the levels above the entries. Returns how many entries there are.
    pub fn finish(&mut self) -> u64 {
        let entries = self.entries;
        loop {
            if self.in_block > 0 {
                self.close_block();
            }
            let firsts = std::mem::take(&mut self.firsts);
            if firsts.len() <= 1 {
                return entries;
            }
            firsts.into_iter().for_each(|first| self.push(first));
        }
    }

    fn close_block(&mut self) {
        let missing = (BLOCK_ENTRIES - self.in_block) * ENTRY_BYTES;
        self.bytes.resize(self.bytes.len() + missing, 0);
        let start = self.bytes.len() - BLOCK_CRC_AT;
        let crc = block_crc(&self.bytes[start..], self.blocks);
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        self.bytes.resize(start + BLOCK_BYTES, 0);
        self.in_block = 0;
    }
}

/// The block that goes to the start of the file, last of all.
pub fn header_block(head: &Head) -> Buffer {
    let mut block = Buffer::with_capacity(BLOCK_BYTES);
    block.set_len(BLOCK_BYTES);
    block[..HEADER_BYTES].copy_from_slice(&head.encode());
    block
}

/// Where the first block behind the header lies.
pub const BLOCKS_AT: u64 = BLOCK_BYTES as u64;

/// One file, open. Shared by all cores.
pub struct KeyFile {
    file: File,
    pub head: Head,
    levels: Vec<u64>,
    /// The entries of the topmost block.
    top: Vec<Entry>,
}

/// What a lookup wants: entries of one hash, from the newest that is not too new.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub hash: u64,
    pub begin_ms: i64,
    pub end_ms: i64,
}

impl Wanted {
    /// The range as deltas; `None` if nothing of a file with these times can be in it.
    pub fn within(&self, base_ms: i64, first_ms: i64, last_ms: i64) -> Option<DeltaRange> {
        if self.end_ms < first_ms || self.begin_ms > last_ms {
            return None;
        }
        Some(DeltaRange {
            hash: self.hash,
            begin: crate::queue_index::Entry::delta(base_ms, self.begin_ms),
            end: crate::queue_index::Entry::delta(base_ms, self.end_ms),
        })
    }
}

/// Entries of one hash with `begin <= delta <= end`.
#[derive(Clone, Copy, Debug)]
pub struct DeltaRange {
    hash: u64,
    begin: u32,
    end: u32,
}

impl DeltaRange {
    /// Whether the entry comes before all that are wanted.
    pub fn is_before(&self, entry: &Entry) -> bool {
        entry.hash < self.hash || entry.hash == self.hash && entry.delta_ms > self.end
    }

    /// Whether the entry is wanted, if it does not come before.
    pub fn contains(&self, entry: &Entry) -> bool {
        entry.hash == self.hash && entry.delta_ms >= self.begin
    }
}

impl KeyFile {
    /// Opens the file at `path` and checks its header, its length and its topmost block. Blocks.
    pub fn open(path: &Path, segment_base: u64, segment_bytes: u64) -> io::Result<KeyFile> {
        let options = OpenOptions {
            read: true,
            ..OpenOptions::default()
        };
        let file = File::open(path, options)?;
        let len = file.len()?;
        let mut header = [0; HEADER_BYTES];
        if len < HEADER_BYTES as u64 {
            return Err(Damage::Short.into());
        }
        file.read_exact_at_blocking(&mut header, 0)?;
        let head = Head::decode(&header)?;
        if (head.segment_base, head.segment_bytes) != (segment_base, segment_bytes) {
            return Err(Damage::Misplaced.into());
        }
        if len != head.file_bytes() {
            return Err(Damage::Short.into());
        }
        KeyFile::of(file, head)
    }

    /// The file just written. Blocks.
    pub fn of(file: File, head: Head) -> io::Result<KeyFile> {
        let mut opened = KeyFile {
            file,
            levels: levels(head.entries),
            head,
            top: Vec::new(),
        };
        if let Some(level) = opened.levels.len().checked_sub(1) {
            let number = opened.number(level, 0);
            let mut block = [0; BLOCK_BYTES];
            let at = number * BLOCK_BYTES as u64;
            opened.file.read_exact_at_blocking(&mut block, at)?;
            opened.top = opened.decode(&block, level, 0, number)?;
        }
        Ok(opened)
    }

    /// The entries in range, newest first, a block at a time.
    pub async fn find(&self, range: DeltaRange) -> io::Result<Matches<'_>> {
        let mut matches = Matches {
            file: self,
            range,
            block: 0,
            entries: Vec::new(),
            at: 0,
        };
        let Some(mut level) = self.levels.len().checked_sub(1) else {
            return Ok(matches);
        };
        let mut entries = self.top.clone();
        loop {
            let before = entries.partition_point(|entry| range.is_before(entry));
            if level == 0 {
                matches.entries = entries;
                matches.at = before;
                return Ok(matches);
            }
            level -= 1;
            // The block before the first that starts in range may end in range.
            let child = before.saturating_sub(1) as u64;
            matches.block = matches.block * BLOCK_ENTRIES as u64 + child;
            entries = self.block(level, matches.block).await?;
        }
    }

    /// The entries of up to `count` blocks of the lowest level from `block` on; none behind the last.
    pub async fn entries(&self, block: u64, count: u64) -> io::Result<Vec<Entry>> {
        let blocks = self.levels.first().copied().unwrap_or(0);
        let count = count.min(blocks.saturating_sub(block));
        if count == 0 {
            return Ok(Vec::new());
        }
        self.blocks(0, block, count).await
    }

    async fn block(&self, level: usize, block: u64) -> io::Result<Vec<Entry>> {
        self.blocks(level, block, 1).await
    }

    async fn blocks(&self, level: usize, block: u64, count: u64) -> io::Result<Vec<Entry>> {
        let number = self.number(level, block);
        let len = count as usize * BLOCK_BYTES;
        let buffer = Buffer::with_capacity(len);
        let at = number * BLOCK_BYTES as u64;
        let (read, buffer) = self.file.read_at(buffer, at, len).await;
        if read? < len {
            return Err(Damage::Short.into());
        }
        let mut entries = Vec::with_capacity(count as usize * BLOCK_ENTRIES);
        for (n, bytes) in (0..).zip(buffer.chunks_exact(BLOCK_BYTES)) {
            entries.append(&mut self.decode(bytes, level, block + n, number + n)?);
        }
        Ok(entries)
    }

    fn decode(
        &self,
        bytes: &[u8],
        level: usize,
        block: u64,
        number: u64,
    ) -> Result<Vec<Entry>, Damage> {
        let of_level = match level.checked_sub(1) {
            None => self.head.entries,
            Some(below) => self.levels[below],
        };
        let count = (of_level - block * BLOCK_ENTRIES as u64).min(BLOCK_ENTRIES as u64);
        let entries = check_block(bytes, number)?.iter().map(Entry::decode);
        Ok(entries.take(count as usize).collect())
    }

    /// Number in the file of a level's block.
    fn number(&self, level: usize, block: u64) -> u64 {
        assert!(block < self.levels[level], "the level has that block");
        1 + self.levels[..level].iter().sum::<u64>() + block
    }
}

/// See [`KeyFile::find`].
pub struct Matches<'a> {
    file: &'a KeyFile,
    range: DeltaRange,
    /// Where the entries at hand are from.
    block: u64,
    entries: Vec<Entry>,
    at: usize,
}

impl Matches<'_> {
    pub async fn next(&mut self) -> io::Result<Option<Entry>> {
        if self.at == self.entries.len() && !self.entries.is_empty() {
            self.block += 1;
            self.entries = self.file.entries(self.block, 1).await?;
            self.at = 0;
        }
        let entry = self.entries.get(self.at).copied();
        self.at += 1;
        Ok(entry.filter(|entry| self.range.contains(entry)))
    }
}
