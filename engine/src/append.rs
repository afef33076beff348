//! Laying one record into the log's tail.
//!
//! The length is the last thing to be written: a process that is killed in the middle of a record leaves a zero
//! length, which recovery takes for the end of the log, never half a record that looks whole. When a record does
//! not fit, the rest of the segment becomes a blank, exactly as RocketMQ fills it.

use crate::segment::{Hot, Memory, Segment};
use crate::window::BLOCK_BYTES;
use protocol::record;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{Ordering, compiler_fence};

/// RocketMQ keeps room for a blank's length and magic behind every record.
pub const END_BLANK_BYTES: u64 = record::HEADER_BYTES as u64;
const LENGTH_BYTES: usize = record::MAGIC_AT - record::TOTAL_AT;

/// Why the store did not take a message. Each variant is one response code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("a record of {bytes} bytes does not fit into a segment, which takes {limit}")]
    TooLarge { bytes: u32, limit: u64 },
    #[error("no further log file can be made: the disk is {used_percent} % full")]
    DiskFull { used_percent: u8 },
    #[error("no further log file can be made: {why}; it is tried again")]
    NoFile { why: io::ErrorKind },
    #[error(
        "the index of earlier messages cannot be written, and memory has no room for more of it; it is tried again"
    )]
    IndexBehind,
    #[error("writing or syncing the log failed; a restart has to check the log first")]
    Poisoned,
}

/// The segment that grows, and how far it has grown. The writer's own.
pub(crate) struct Tail {
    segment: Arc<Segment>,
    hot: Arc<Hot>,
    /// Where the next record goes, counted from the segment's first byte.
    position: u64,
}

impl Tail {
    /// Goes on in `segment`, which is hot, at the log offset `at`.
    pub fn new(segment: Arc<Segment>, at: u64) -> Tail {
        let hot = segment.hot().as_ref().expect("the tail is hot").clone();
        let position = at
            .checked_sub(segment.base())
            .expect("at is in the segment");
        assert!(position <= segment.bytes(), "at is in the segment");
        Tail {
            segment,
            hot,
            position,
        }
    }

    pub fn hot(&self) -> &Hot {
        &self.hot
    }

    #[inline]
    pub fn position(&self) -> u64 {
        self.position
    }

    #[inline]
    pub fn log_offset(&self) -> u64 {
        self.segment.base() + self.position
    }

    /// Whether a record of this length can follow without a blank.
    #[inline]
    pub fn fits(&self, record_bytes: u32) -> bool {
        self.position + u64::from(record_bytes) + END_BLANK_BYTES <= self.segment.bytes()
    }

    /// How far a blank is laid, counted like the position. What lies behind that in the segment is not written: nobody
    /// reads it.
    pub fn blank_end(&self) -> u64 {
        let header_end = self.position + END_BLANK_BYTES;
        match &self.hot.memory {
            Memory::Mapped(_) => header_end,
            // As long as any other record at most.
            Memory::Window(window) if self.rest() <= window.record_bytes_max() => {
                self.segment.bytes()
            }
            Memory::Window(_) => header_end.next_multiple_of(BLOCK_BYTES),
        }
    }

    fn rest(&self) -> u64 {
        self.segment.bytes() - self.position
    }

    /// The longest record that can be laid at all.
    pub fn record_bytes_max(&self) -> u64 {
        let of_segment = self.segment.bytes() - END_BLANK_BYTES;
        match &self.hot.memory {
            Memory::Mapped(_) => of_segment,
            Memory::Window(window) => of_segment.min(window.record_bytes_max()),
        }
    }

    /// Copies a finished record to the tail.
    #[inline]
    pub fn lay(&mut self, record: &[u8]) {
        assert!(self.fits(record.len() as u32), "the caller made room");
        debug_assert_eq!(
            record::len_at(record).map(|header| header.total),
            Ok(record.len())
        );
        match &self.hot.memory {
            Memory::Mapped(mapping) => {
                let at = self.position as usize;
                // SAFETY: the bytes lie above `written`, so no reader looks at them, and only the writer has the tail.
                let target = unsafe { mapping.bytes_mut(at, record.len()) };
                target[LENGTH_BYTES..].copy_from_slice(&record[LENGTH_BYTES..]);
                compiler_fence(Ordering::SeqCst);
                target[..LENGTH_BYTES].copy_from_slice(&record[..LENGTH_BYTES]);
            }
            // What counts there is the published end.
            Memory::Window(window) => window.lay(self.log_offset(), record),
        }
        self.position += record.len() as u64;
    }

    /// Makes the rest of the segment a blank; it is full then. Returns the part of the log, by its offsets, that the window
    /// leaves out.
    pub fn fill_blank(&mut self) -> Range<u64> {
        let rest = self.rest();
        let left_out = self.segment.base() + self.blank_end()..self.segment.end();
        assert!(
            rest >= END_BLANK_BYTES,
            "every record leaves room for a blank"
        );
        let (length, magic) = (
            (rest as u32).to_be_bytes(),
            record::MAGIC_BLANK.to_be_bytes(),
        );
        match &self.hot.memory {
            Memory::Mapped(mapping) => {
                let at = self.position as usize;
                // SAFETY: as in `lay`.
                let target = unsafe { mapping.bytes_mut(at, record::HEADER_BYTES) };
                target[record::MAGIC_AT..].copy_from_slice(&magic);
                compiler_fence(Ordering::SeqCst);
                target[..LENGTH_BYTES].copy_from_slice(&length);
            }
            Memory::Window(window) => {
                let at = self.log_offset();
                window.lay_zeros(at, left_out.start - at);
                window.lay(at, &length);
                window.lay(at + record::MAGIC_AT as u64, &magic);
            }
        }
        self.segment.end_at(left_out.start);
        self.position = self.segment.bytes();
        left_out
    }
}
