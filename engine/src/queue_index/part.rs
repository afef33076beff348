//! The companion file: queues, where each stands, and entries. Parts and sealed indexes share it.
//!
//! ```text
//! header     128 bytes, ends with its crc32c
//! directory  per topic: name length u16, name, queues u32; per queue: id u32, entries u32, first offset u64
//! padding    to 4096
//! blocks     4096 bytes each: 255 entries, crc32c of them and of the block's number, 12 zero bytes
//! ```
//!
//! Little endian. A part lists every queue of the store, those without entries too, because `first + entries`
//! is the queue's next offset at the log position the file covers: this is what makes the last part a checkpoint.
//! Topics and ids are sorted. Nothing here does I/O.

use super::{ENTRY_BYTES, Entry};
use std::io;
use thiserror::Error;

const MAGIC: [u8; 8] = *b"ORBITIX1";
pub const HEADER_BYTES: usize = 128;
const HEADER_CRC_AT: usize = HEADER_BYTES - 4;
pub const BLOCK_BYTES: usize = 4096;
pub const BLOCK_ENTRIES: usize = 255;
pub const BLOCK_CRC_AT: usize = BLOCK_ENTRIES * ENTRY_BYTES;
const _: () = assert!(BLOCK_CRC_AT + 4 + 12 == BLOCK_BYTES);
/// What a queue takes in the directory.
pub const LISTED_BYTES: usize = 4 + 4 + 8;
/// Blocks are handed on in pieces of this size.
const PIECE_BYTES: usize = 64 * BLOCK_BYTES;
/// A directory longer than this is damage: 4 million queues with long names fit.
const DIRECTORY_BYTES_MAX: u64 = 1 << 30;

/// Whether a file is one of several parts or the whole index of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Part,
    Sealed,
}

/// What a companion says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub kind: Kind,
    pub segment_base: u64,
    pub segment_bytes: u64,
    /// The file has the entries of the records in `from..to`, log offsets.
    pub from: u64,
    pub to: u64,
    /// Store time of the segment's first record; the entries' deltas count from it.
    pub base_ms: i64,
    /// Store time of the last record below `to`.
    pub last_ms: i64,
}

/// One queue of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    pub topic: &'a str,
    pub id: u32,
    /// Offset of the first entry in this file; without entries, the queue's next offset.
    pub first: u64,
    pub entries: u32,
}

/// A companion's header, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub head: Head,
    pub queues: u32,
    pub entries: u64,
    pub directory_bytes: u64,
    directory_crc: u32,
}

/// Why a companion cannot be used. It is rebuilt then.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Damage {
    #[error("shorter than its contents")]
    Short,
    #[error("not a companion file of this version")]
    Magic,
    #[error("the header does not match its checksum")]
    Header,
    #[error("the directory does not match its checksum")]
    Directory,
    #[error("a block of entries does not match its checksum")]
    Block,
    #[error("belongs to another segment or another place in it")]
    Misplaced,
}

impl From<Damage> for io::Error {
    fn from(damage: Damage) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, damage)
    }
}

/// Writes a companion in order, piece by piece. `queues` are sorted by topic and id; `entry(q, n)` is the n-th
/// entry of `queues[q]`.
pub fn encode(
    head: &Head,
    queues: &[Listed<'_>],
    mut entry: impl FnMut(usize, u32) -> Entry,
    mut out: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let directory = encode_directory(queues);
    let header = Header {
        head: head.clone(),
        queues: queues.len() as u32,
        entries: queues.iter().map(|queue| u64::from(queue.entries)).sum(),
        directory_bytes: directory.len() as u64,
        directory_crc: crc32c::crc32c(&directory),
    };
    out(&header.encode())?;
    out(&directory)?;
    let padding = header.blocks_at() as usize - HEADER_BYTES - directory.len();
    out(&[0; BLOCK_BYTES][..padding])?;
    let mut blocks = BlockWriter::default();
    for (number, queue) in queues.iter().enumerate() {
        for n in 0..queue.entries {
            blocks.push(entry(number, n));
            if blocks.bytes.len() >= PIECE_BYTES {
                out(&blocks.bytes)?;
                blocks.bytes.clear();
            }
        }
    }
    out(blocks.finish())
}

fn encode_directory(queues: &[Listed<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(queues.len() * 24);
    for of_topic in queues.chunk_by(|a, b| a.topic == b.topic) {
        let topic = of_topic[0].topic;
        let len = u16::try_from(topic.len()).expect("topic names are at most 255 bytes");
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(topic.as_bytes());
        bytes.extend_from_slice(&(of_topic.len() as u32).to_le_bytes());
        for queue in of_topic {
            bytes.extend_from_slice(&queue.id.to_le_bytes());
            bytes.extend_from_slice(&queue.entries.to_le_bytes());
            bytes.extend_from_slice(&queue.first.to_le_bytes());
        }
    }
    bytes
}

#[derive(Default)]
struct BlockWriter {
    bytes: Vec<u8>,
    in_block: usize,
    number: u64,
}

impl BlockWriter {
    fn push(&mut self, entry: Entry) {
        self.bytes.extend_from_slice(&entry.encode());
        self.in_block += 1;
        if self.in_block == BLOCK_ENTRIES {
            self.close_block();
        }
    }

    fn close_block(&mut self) {
        let missing = (BLOCK_ENTRIES - self.in_block) * ENTRY_BYTES;
        self.bytes.resize(self.bytes.len() + missing, 0);
        let start = self.bytes.len() - BLOCK_CRC_AT;
        let crc = block_crc(&self.bytes[start..], self.number);
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        self.bytes.resize(start + BLOCK_BYTES, 0);
        self.in_block = 0;
        self.number += 1;
    }

    fn finish(&mut self) -> &[u8] {
        if self.in_block > 0 {
            self.close_block();
        }
        &self.bytes
    }
}

pub fn block_crc(entries: &[u8], number: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(entries), &number.to_le_bytes())
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&MAGIC);
        put(&u32::from(self.head.kind == Kind::Sealed).to_le_bytes());
        put(&self.queues.to_le_bytes());
        put(&self.head.segment_base.to_le_bytes());
        put(&self.head.segment_bytes.to_le_bytes());
        put(&self.head.from.to_le_bytes());
        put(&self.head.to.to_le_bytes());
        put(&self.head.base_ms.to_le_bytes());
        put(&self.head.last_ms.to_le_bytes());
        put(&self.entries.to_le_bytes());
        put(&self.directory_bytes.to_le_bytes());
        put(&self.directory_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header at the start of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Header, Damage> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(Damage::Short)?;
        if bytes[..8] != MAGIC {
            return Err(Damage::Magic);
        }
        let crc = crc32c::crc32c(&bytes[..HEADER_CRC_AT]);
        if u32_at(bytes, HEADER_CRC_AT) != crc {
            return Err(Damage::Header);
        }
        let kind = match u32_at(bytes, 8) {
            0 => Kind::Part,
            1 => Kind::Sealed,
            _ => return Err(Damage::Magic),
        };
        let header = Header {
            head: Head {
                kind,
                segment_base: u64_at(bytes, 16),
                segment_bytes: u64_at(bytes, 24),
                from: u64_at(bytes, 32),
                to: u64_at(bytes, 40),
                base_ms: u64_at(bytes, 48) as i64,
                last_ms: u64_at(bytes, 56) as i64,
            },
            queues: u32_at(bytes, 12),
            entries: u64_at(bytes, 64),
            directory_bytes: u64_at(bytes, 72),
            directory_crc: u32_at(bytes, 80),
        };
        if header.directory_bytes > DIRECTORY_BYTES_MAX || header.head.from > header.head.to {
            return Err(Damage::Header);
        }
        Ok(header)
    }

    /// Where the first block of entries starts.
    pub fn blocks_at(&self) -> u64 {
        (HEADER_BYTES as u64 + self.directory_bytes).next_multiple_of(BLOCK_BYTES as u64)
    }

    /// Length of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.blocks_at() + self.entries.div_ceil(BLOCK_ENTRIES as u64) * BLOCK_BYTES as u64
    }

    /// Reads the directory, whose bytes follow the header, and names every queue in order.
    pub fn directory<'a>(
        &self,
        bytes: &'a [u8],
        each: impl FnMut(Listed<'a>),
    ) -> Result<(), Damage> {
        let len = self.directory_bytes as usize;
        let bytes = bytes.get(..len).ok_or(Damage::Short)?;
        if crc32c::crc32c(bytes) != self.directory_crc {
            return Err(Damage::Directory);
        }
        listed(bytes, each)
    }
}

/// Names every queue of whole topics of a directory, in order. The bytes were compared with a checksum.
pub fn listed<'a>(mut rest: &'a [u8], mut each: impl FnMut(Listed<'a>)) -> Result<(), Damage> {
    while !rest.is_empty() {
        let topic_bytes = u16::from_le_bytes(take::<2>(&mut rest)?) as usize;
        let (topic, after) = rest
            .split_at_checked(topic_bytes)
            .ok_or(Damage::Directory)?;
        let topic = std::str::from_utf8(topic).map_err(|_| Damage::Directory)?;
        rest = after;
        for _ in 0..u32::from_le_bytes(take::<4>(&mut rest)?) {
            each(Listed {
                topic,
                id: u32::from_le_bytes(take::<4>(&mut rest)?),
                entries: u32::from_le_bytes(take::<4>(&mut rest)?),
                first: u64::from_le_bytes(take::<8>(&mut rest)?),
            });
        }
    }
    Ok(())
}

/// What a topic takes in the directory, besides its queues.
pub fn topic_bytes(topic: &str) -> usize {
    2 + topic.len() + 4
}

/// Which block the entry is in, and which entry of the block it is.
pub fn block_of(entry: u64) -> (u64, usize) {
    let block = BLOCK_ENTRIES as u64;
    (entry / block, (entry % block) as usize)
}

/// The entries of block `number`, once they match their checksum.
pub fn check_block(block: &[u8], number: u64) -> Result<&[[u8; ENTRY_BYTES]], Damage> {
    let block: &[u8; BLOCK_BYTES] = block.first_chunk().ok_or(Damage::Short)?;
    let entries = &block[..BLOCK_CRC_AT];
    if u32_at(block, BLOCK_CRC_AT) != block_crc(entries, number) {
        return Err(Damage::Block);
    }
    Ok(entries_of(block))
}

/// The entries of a block that was checked.
pub fn entries_of(block: &[u8]) -> &[[u8; ENTRY_BYTES]] {
    block[..BLOCK_CRC_AT].as_chunks().0
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Damage> {
    let (head, tail) = rest.split_first_chunk().ok_or(Damage::Directory)?;
    *rest = tail;
    Ok(*head)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Model = Vec<(String, u32, u64, Vec<Entry>)>;

    fn write(head: &Head, model: &Model) -> Vec<u8> {
        let queues: Vec<Listed<'_>> = model
            .iter()
            .map(|(topic, id, first, entries)| Listed {
                topic,
                id: *id,
                first: *first,
                entries: entries.len() as u32,
            })
            .collect();
        let mut file = Vec::new();
        encode(
            head,
            &queues,
            |queue, n| model[queue].3[n as usize],
            |piece| {
                file.extend_from_slice(piece);
                Ok(())
            },
        )
        .expect("a vector takes everything");
        file
    }

    fn read(file: &[u8]) -> Result<(Head, Model), Damage> {
        let header = Header::decode(file)?;
        if (file.len() as u64) < header.file_bytes() {
            return Err(Damage::Short);
        }
        let mut model: Model = Vec::new();
        let mut next = 0;
        let mut damage = None;
        header.directory(&file[HEADER_BYTES..], |listed| {
            let mut entries = Vec::new();
            for ordinal in next..next + u64::from(listed.entries) {
                let (number, slot) = block_of(ordinal);
                let at = header.blocks_at() as usize + number as usize * BLOCK_BYTES;
                match check_block(&file[at..], number) {
                    Ok(block) => entries.push(Entry::decode(&block[slot])),
                    Err(found) => damage = Some(found),
                }
            }
            next += u64::from(listed.entries);
            model.push((listed.topic.to_owned(), listed.id, listed.first, entries));
        })?;
        match damage {
            Some(damage) => Err(damage),
            None => Ok((header.head, model)),
        }
    }

    fn head() -> Head {
        Head {
            kind: Kind::Part,
            segment_base: 1 << 30,
            segment_bytes: 1 << 30,
            from: (1 << 30) + 4096,
            to: (1 << 30) + 8192,
            base_ms: 1_700_000_000_000,
            last_ms: 1_700_000_000_500,
        }
    }

    fn models() -> impl Strategy<Value = Model> {
        let entries = proptest::collection::vec(
            (any::<u32>(), 1u32.., any::<i32>(), any::<u32>()).prop_map(
                |(position, bytes, tag_hash, delta_ms)| Entry {
                    position,
                    bytes,
                    tag_hash,
                    delta_ms,
                },
            ),
            0..400,
        );
        proptest::collection::btree_map(("[a-c%_]{1,4}", 0u32..5), (any::<u64>(), entries), 0..8)
            .prop_map(|queues| {
                queues
                    .into_iter()
                    .map(|((topic, id), (first, entries))| (topic, id, first, entries))
                    .collect()
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_companion_reads_back_as_written(model in models()) {
            let file = write(&head(), &model);
            prop_assert_eq!(file.len() as u64, Header::decode(&file).expect("just written").file_bytes());
            let (read_head, read_model) = read(&file).expect("just written");
            prop_assert_eq!(read_head, head());
            prop_assert_eq!(read_model, model);
        }

        #[test]
        fn a_flipped_bit_is_noticed_or_harmless(model in models(), at: prop::sample::Index, bit in 0u8..8) {
            let mut file = write(&head(), &model);
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
            if let Ok((read_head, read_model)) = read(&file) {
                prop_assert_eq!(read_head, head());
                prop_assert_eq!(read_model, model);
            }
        }

        #[test]
        fn a_file_cut_short_is_noticed(model in models(), at: prop::sample::Index) {
            let file = write(&head(), &model);
            let cut = at.index(file.len());
            prop_assert!(read(&file[..cut]).is_err());
        }
    }

    #[test]
    fn a_block_in_another_blocks_place_is_noticed() {
        let entry = Entry {
            position: 1,
            bytes: 2,
            tag_hash: 3,
            delta_ms: 4,
        };
        let model = vec![("t".to_owned(), 0, 0, vec![entry; 2 * BLOCK_ENTRIES])];
        let mut file = write(&head(), &model);
        let at = file.len() - 2 * BLOCK_BYTES;
        let first = file[at..at + BLOCK_BYTES].to_vec();
        file[at + BLOCK_BYTES..].copy_from_slice(&first);
        assert_eq!(read(&file), Err(Damage::Block));
    }
}
