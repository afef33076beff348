//! Walking the records of a segment with large reads, several in flight, each record checked.

use protocol::record::{self, View};
use reactor::{Buffer, File, Task};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Bytes per read, and how many reads are on their way while the records before them are looked at.
const READ_BYTES: u64 = 1 << 20;
const READS_AHEAD: usize = 4;
/// Reads begin and end at multiples of this, so that files opened for direct access can be walked.
const PAGE_BYTES: u64 = 4096;
/// What a power cut leaves old or new as a whole.
const SECTOR_BYTES: u64 = 512;
/// Why a log ends that is in order.
pub const NOTHING_MORE: &str = "nothing more was written";

/// See the module.
pub struct Walk {
    file: Arc<File>,
    base: u64,
    bytes: u64,
    position: u64,
    /// Bytes of the segment from `window_at` on, those at `position` among them.
    window: Vec<u8>,
    window_at: u64,
    /// Reads on their way, in order; together they end at `read_to`.
    coming: VecDeque<Task<(io::Result<usize>, Buffer)>>,
    read_to: u64,
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
    /// Through the segment that starts at the log offset `base` and has `bytes`, from `position` on.
    pub fn new(file: Arc<File>, base: u64, bytes: u64, position: u64) -> Walk {
        Walk {
            file,
            base,
            bytes,
            position,
            window: Vec::new(),
            window_at: position / PAGE_BYTES * PAGE_BYTES,
            coming: VecDeque::new(),
            read_to: position / PAGE_BYTES * PAGE_BYTES,
        }
    }

    /// Where the next step looks.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub async fn next(&mut self) -> io::Result<Step<'_>> {
        let rest = self.bytes - self.position;
        if rest < record::HEADER_BYTES as u64 {
            return Ok(Step::End("no room for a record or a blank"));
        }
        self.load(record::HEADER_BYTES as u64).await?;
        let start = self.shown(record::HEADER_BYTES);
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
        self.load(total).await?;
        let position = self.position;
        self.position += total;
        let at = (position - self.window_at) as usize;
        let bytes = &self.window[at..at + header.total];
        Ok(Step::Record(Found {
            position,
            view: check(bytes, self.base + position, position),
        }))
    }

    /// Steps to another place.
    pub fn go_to(&mut self, position: u64) {
        let window = self.window_at..=self.window_at + self.window.len() as u64;
        if !window.contains(&position) {
            self.window.clear();
            self.coming.clear();
            self.window_at = position / PAGE_BYTES * PAGE_BYTES;
            self.read_to = self.window_at;
        }
        self.position = position;
    }

    /// Goes on, behind damage, at the next place that looks like a record which claims to be there, or at the blank
    /// that fills the file. Returns whether there is one.
    pub async fn find_next_record(&mut self) -> io::Result<bool> {
        loop {
            self.position += 1;
            let rest = self.bytes - self.position;
            if rest < record::SYS_FLAG_AT as u64 {
                return Ok(false);
            }
            self.load(record::SYS_FLAG_AT as u64).await?;
            let (base, end) = (self.base, self.bytes);
            let at = (self.position - self.window_at) as usize;
            let found = self.window[at..]
                .windows(record::SYS_FLAG_AT)
                .zip(self.position..)
                .find(|(start, position)| begins(start, base + position, end - position));
            self.position = match found {
                Some((_, position)) => position,
                None => self.window_at + (self.window.len() - record::SYS_FLAG_AT) as u64,
            };
            if found.is_some() {
                return Ok(true);
            }
        }
    }

    /// The first byte from here to the end of the segment that is not zero.
    pub async fn find_not_zero(&mut self) -> io::Result<Option<u64>> {
        while self.position < self.bytes {
            self.load(1).await?;
            let at = (self.position - self.window_at) as usize;
            if let Some(found) = self.window[at..].iter().position(|byte| *byte != 0) {
                return Ok(Some(self.position + found as u64));
            }
            self.position = self.window_at + self.window.len() as u64;
        }
        Ok(None)
    }

    /// Makes sure that `len` bytes from the position on are in the window.
    async fn load(&mut self, len: u64) -> io::Result<()> {
        let end = self.position + len;
        debug_assert!(end <= self.bytes, "nothing is read behind the file");
        while self.window_at + (self.window.len() as u64) < end {
            self.read_ahead();
            let window_end = self.window_at + self.window.len() as u64;
            // What the walk has passed is not needed any more.
            let passed = self.position.min(window_end) - self.window_at;
            self.window.drain(..passed as usize);
            self.window_at += passed;
            let reading = self.coming.pop_front();
            let arrived = reading.expect("the file has more").await;
            let (read, buffer) = arrived.ok_or(io::ErrorKind::Interrupted)?;
            let wanted = READ_BYTES.min(self.bytes - window_end);
            if (read? as u64) < wanted {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.window.extend_from_slice(&buffer);
        }
        Ok(())
    }

    /// Keeps several reads on their way.
    fn read_ahead(&mut self) {
        while self.coming.len() < READS_AHEAD && self.read_to < self.bytes {
            let (file, at) = (self.file.clone(), self.read_to);
            let len = READ_BYTES.min(self.bytes - at);
            self.coming
                .push_back(reactor::spawn("read the log", async move {
                    let buffer = Buffer::with_capacity(len as usize);
                    file.read_at(buffer, at, len as usize).await
                }));
            self.read_to += len;
        }
    }

    fn shown(&self, len: usize) -> &[u8] {
        let at = (self.position - self.window_at) as usize;
        &self.window[at..at + len]
    }
}

/// Whether the first bytes of something are those of a record that claims the log offset, or of a blank that ends
/// with the file.
fn begins(start: &[u8], log_offset: u64, rest: u64) -> bool {
    let Ok(header) = record::len_at(start) else {
        return false;
    };
    match header.is_blank() {
        true => header.total as u64 == rest,
        false => start[record::LOG_OFFSET_AT..record::SYS_FLAG_AT] == log_offset.to_be_bytes(),
    }
}

/// A record counts if it is whole, claims the place it is at, and its body matches its checksum.
pub fn check(bytes: &[u8], log_offset: u64, position: u64) -> Result<View<'_>, &'static str> {
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
