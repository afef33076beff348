//! Walking the records of a segment with large reads, each one checked.

use crate::segment::Segment;
use protocol::record::{self, View};
use reactor::Buffer;
use std::io;
use std::sync::Arc;

/// Bytes per read. A longer record gets a read of its own length.
const READ_BYTES: usize = 4 << 20;
const PAGE_BYTES: u64 = 4096;
/// What a power cut leaves old or new as a whole.
const SECTOR_BYTES: u64 = 512;
/// Why a log ends that is in order.
pub const NOTHING_MORE: &str = "nothing more was written";

/// See the module.
pub struct Walk {
    segment: Arc<Segment>,
    position: u64,
    buffer: Buffer,
    /// Position of the buffer's first byte.
    buffer_at: u64,
}

/// What is at the walk's place.
pub enum Step<'a> {
    /// A record; the walk stands behind it now.
    Record(Found<'a>),
    /// A blank up to the segment's end.
    Full,
    /// No record: the log ends here, or is damaged.
    End(&'static str),
}

/// A record of plausible length, and what is wrong with it otherwise.
pub struct Found<'a> {
    pub position: u64,
    pub view: Result<View<'a>, &'static str>,
}

impl Walk {
    pub fn new(segment: Arc<Segment>, position: u64) -> Walk {
        Walk {
            segment,
            position,
            buffer: Buffer::with_capacity(READ_BYTES),
            buffer_at: position,
        }
    }

    /// Where the next step looks.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub async fn next(&mut self) -> io::Result<Step<'_>> {
        let rest = self.segment.bytes() - self.position;
        if rest < record::HEADER_BYTES as u64 {
            return Ok(Step::End("no room for a record or a blank"));
        }
        self.load(record::HEADER_BYTES).await?;
        let start = self.bytes(record::HEADER_BYTES);
        if start[..record::MAGIC_AT] == [0; record::MAGIC_AT] {
            return Ok(Step::End(NOTHING_MORE));
        }
        let Ok(header) = record::len_at(start) else {
            return Ok(Step::End("neither a record nor a blank"));
        };
        let total = header.total as u64;
        if header.is_blank() {
            return Ok(match total == rest {
                true => Step::Full,
                false => Step::End("a blank that does not reach the end of the file"),
            });
        }
        if total + record::HEADER_BYTES as u64 > rest {
            return Ok(Step::End("a record longer than the file"));
        }
        self.load(header.total).await?;
        let position = self.position;
        self.position += total;
        let log_offset = self.segment.base() + position;
        let at = (position - self.buffer_at) as usize;
        let bytes = &self.buffer[at..at + header.total];
        Ok(Step::Record(Found {
            position,
            view: check(bytes, log_offset, position),
        }))
    }

    /// Makes sure that `len` bytes from the position on are in the buffer.
    async fn load(&mut self, len: usize) -> io::Result<()> {
        let end = self.position + len as u64;
        if self.position >= self.buffer_at && end <= self.buffer_at + self.buffer.len() as u64 {
            return Ok(());
        }
        let from = self.position / PAGE_BYTES * PAGE_BYTES;
        let wanted = (end - from).max(READ_BYTES as u64);
        let wanted = wanted.min(self.segment.bytes() - from) as usize;
        let mut buffer = std::mem::replace(&mut self.buffer, Buffer::with_capacity(0));
        if buffer.capacity() < wanted {
            buffer = Buffer::with_capacity(wanted);
        }
        let (read, buffer) = self.segment.file().read_at(buffer, from, wanted).await;
        self.buffer = buffer;
        self.buffer_at = from;
        if read? < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn bytes(&self, len: usize) -> &[u8] {
        let at = (self.position - self.buffer_at) as usize;
        &self.buffer[at..at + len]
    }
}

/// A record counts if it is whole, claims the place it is at, and its body matches its checksum.
fn check(bytes: &[u8], log_offset: u64, position: u64) -> Result<View<'_>, &'static str> {
    let view = View::parse(bytes).map_err(|_| "a record whose parts do not fit together")?;
    if view.log_offset != log_offset {
        return Err("a record of another place");
    }
    view.check_body()
        .map_err(|_| "a body that does not match its checksum")?;
    if lost_sectors(&view, position) {
        return Err("properties that never reached the disk");
    }
    Ok(view)
}

/// The properties have no checksum. But what a power cut leaves out is whole sectors, and those are zero.
fn lost_sectors(view: &View<'_>, position: u64) -> bool {
    let end = view.bytes.len() as u64;
    let start = end - view.properties.len() as u64;
    let mut sector = (position + start) / SECTOR_BYTES * SECTOR_BYTES;
    while sector < position + end {
        let from = sector.max(position + start) - position;
        let to = (sector + SECTOR_BYTES).min(position + end) - position;
        let part = &view.bytes[from as usize..to as usize];
        if !part.is_empty() && part.iter().all(|byte| *byte == 0) {
            return true;
        }
        sector += SECTOR_BYTES;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::record::Draft;
    use protocol::text::Text;
    use std::net::SocketAddr;

    fn record(properties: &[u8]) -> Vec<u8> {
        let host = SocketAddr::from(([127, 0, 0, 1], 10911));
        let draft = Draft {
            topic: "t",
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_ms: 1,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            properties: Text::plain(properties),
            body: b"body",
        };
        let mut bytes = Vec::new();
        let placed = draft.append_to(&mut bytes);
        record::patch(&mut bytes, 0, 4096, placed.store_time_at, 2);
        bytes
    }

    #[test]
    fn a_sector_missing_from_the_properties_is_noticed_wherever_the_record_lies() {
        let whole = record(&[b'p'; 3_000]);
        let properties_at = whole.len() - 3_000;
        for position in [0u64, 100, 4_096 - 300, 511] {
            assert!(check(&whole, 4096, position).is_ok());
            let first = (position as usize + properties_at).next_multiple_of(512);
            for sector in (first..position as usize + whole.len()).step_by(512) {
                let from = sector - position as usize;
                let to = (from + 512).min(whole.len());
                let mut torn = whole.clone();
                torn[from..to].fill(0);
                assert!(check(&torn, 4096, position).is_err(), "{position} {sector}");
            }
        }
    }

    #[test]
    fn a_zero_byte_in_the_properties_is_the_users_business() {
        let mut properties = vec![b'p'; 3_000];
        properties[1_500] = 0;
        assert!(check(&record(&properties), 4096, 0).is_ok());
    }

    #[test]
    fn a_record_of_another_place_or_with_another_body_does_not_count() {
        let bytes = record(b"");
        assert!(check(&bytes, 4096, 0).is_ok());
        assert!(check(&bytes, 8192, 0).is_err());
        let mut changed = bytes.clone();
        let body_at = bytes.len() - 2 - 2 - 4;
        changed[body_at] ^= 1;
        assert!(check(&changed, 4096, 0).is_err());
    }
}
