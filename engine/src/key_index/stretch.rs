//! A stretch of the log in memory, for somebody who reads record after record: from the tail's mapping where it is hot,
//! copied from the window where it has it, else read asynchronously. Hot or not, it may be handed to another thread.

use crate::segment::{Medium, Memory, Segment};
use crate::store::Store;
use crate::window::Window;
use reactor::{Buffer, Mapping};
use std::io;
use std::sync::Arc;

/// What is read at once. A longer record gets a stretch of its own length.
pub const STRETCH_BYTES: u64 = 4 << 20;
const PAGE_BYTES: u64 = 4096;

/// Bytes of a segment.
pub struct Stretch {
    body: Body,
    /// Where in the body they start.
    at: usize,
    len: usize,
}

enum Body {
    Mapped(Arc<Mapping>),
    Read(Buffer),
}

impl Stretch {
    /// The bytes `from..to` of the segment, positions. All of them lie below what is released.
    pub async fn read(store: &Store, segment: &Segment, from: u64, to: u64) -> io::Result<Stretch> {
        assert!(from < to && to <= segment.bytes(), "inside the segment");
        assert!(segment.base() + to <= store.log().released().0, "released");
        if let Medium::Direct(window) = segment.medium() {
            return Stretch::copy(store, window, segment, from, to).await;
        }
        let hot_from = store.log().hot_from(store.config().hot_bytes).0;
        if segment.base() + from >= hot_from
            && let Some(hot) = segment.hot().as_ref()
            && let Memory::Mapped(mapping) = &hot.memory
        {
            return Ok(Stretch {
                body: Body::Mapped(mapping.clone()),
                at: from as usize,
                len: (to - from) as usize,
            });
        }
        Stretch::read_file(segment, from, to).await
    }

    async fn read_file(segment: &Segment, from: u64, to: u64) -> io::Result<Stretch> {
        let first = from / PAGE_BYTES * PAGE_BYTES;
        let end = to.next_multiple_of(PAGE_BYTES).min(segment.bytes());
        let len = (end - first) as usize;
        let buffer = Buffer::with_capacity(len);
        let (read, buffer) = segment.file().read_at(buffer, first, len).await;
        if read? < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Stretch {
            body: Body::Read(buffer),
            at: (from - first) as usize,
            len: (to - from) as usize,
        })
    }

    /// What the window has may be nowhere else yet; what has left it is on disk.
    async fn copy(
        store: &Store,
        window: &Window,
        segment: &Segment,
        from: u64,
        to: u64,
    ) -> io::Result<Stretch> {
        let (base, len) = (segment.base(), (to - from) as usize);
        let mut buffer = Buffer::with_capacity(len);
        buffer.set_len(len);
        let mut done = 0;
        while done < len {
            let at = base + from + done as u64;
            if let Some(pinned) = window.pin(at) {
                let step = (len - done).min(pinned.piece_bytes_max());
                buffer[done..done + step].copy_from_slice(pinned.bytes(at, step));
                done += step;
                continue;
            }
            let on_disk = store.log().on_disk().0.saturating_sub(base).min(to);
            if on_disk <= at - base {
                reactor::yield_now().await; // too many readers at once
                continue;
            }
            let read = Stretch::read_file(segment, at - base, on_disk).await?;
            buffer[done..done + read.len].copy_from_slice(read.bytes());
            done += read.len;
        }
        Ok(Stretch {
            body: Body::Read(buffer),
            at: 0,
            len,
        })
    }

    pub fn bytes(&self) -> &[u8] {
        match &self.body {
            // SAFETY: released records are complete and never change; `bytes` checks the range.
            Body::Mapped(mapping) => unsafe { mapping.bytes(self.at, self.len) },
            Body::Read(buffer) => &buffer[self.at..self.at + self.len],
        }
    }
}
