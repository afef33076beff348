//! A stretch of the log in memory, for somebody who reads record after record: from the tail's mapping where it is hot,
//! copied from the window where it has it, else read asynchronously. Hot or not, it may be handed to another thread, and what has
//! to be copied is copied there.

use crate::segment::{Medium, Memory, Segment};
use crate::store::Store;
use crate::window::Window;
use reactor::{Buffer, Mapping};
use std::io;
use std::sync::Arc;

/// What is read at once. A longer record gets a stretch of its own length.
pub const STRETCH_BYTES: u64 = 4 << 20;
const PAGE_BYTES: u64 = 4096;
/// So much is copied from the window under one pin: the writer may have to wait for it.
const COPY_BYTES: usize = 256 << 10;

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
    /// Still to be copied, from this log offset on.
    Window(Arc<Window>, u64, Buffer),
}

impl Stretch {
    /// The bytes `from..to` of the segment, positions, or the first part of them. All of them lie below what is released.
    /// `spare` is memory that may be used for them.
    pub async fn read(
        store: &Store,
        segment: &Segment,
        from: u64,
        to: u64,
        spare: Option<Buffer>,
    ) -> io::Result<Stretch> {
        assert!(from < to && to <= segment.bytes(), "inside the segment");
        assert!(segment.base() + to <= store.log().released().0, "released");
        if let Medium::Direct(window) = segment.medium() {
            return Stretch::read_direct(store, window, segment, from, to, spare).await;
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
        Stretch::read_file(segment, from, to, spare).await
    }

    /// What the window has may be nowhere else yet; what has left it is on disk.
    async fn read_direct(
        store: &Store,
        window: &Arc<Window>,
        segment: &Segment,
        from: u64,
        to: u64,
        spare: Option<Buffer>,
    ) -> io::Result<Stretch> {
        let at = segment.base() + from;
        loop {
            if window.pin(at).is_some() {
                let len = (to - from) as usize;
                return Ok(Stretch {
                    body: Body::Window(window.clone(), at, buffer_for(spare, len)),
                    at: 0,
                    len,
                });
            }
            let on_disk = store.log().on_disk().0;
            if on_disk > at {
                let to = to.min(on_disk - segment.base());
                return Stretch::read_file(segment, from, to, spare).await;
            }
            reactor::yield_now().await; // too many readers at once
        }
    }

    async fn read_file(
        segment: &Segment,
        from: u64,
        to: u64,
        spare: Option<Buffer>,
    ) -> io::Result<Stretch> {
        let first = from / PAGE_BYTES * PAGE_BYTES;
        let end = to.next_multiple_of(PAGE_BYTES).min(segment.bytes());
        let len = (end - first) as usize;
        let buffer = buffer_for(spare, len);
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

    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// Copies what is in the window, which takes too long for a core. `None`: that has left the window meanwhile, or too
    /// many read there; to be read again.
    pub fn load(&mut self) -> Option<&[u8]> {
        if let Body::Window(window, from, buffer) = &mut self.body {
            let mut done = 0;
            while done < self.len {
                let at = *from + done as u64;
                let pinned = window.pin(at)?;
                let step = (self.len - done)
                    .min(COPY_BYTES)
                    .min(pinned.piece_bytes_max());
                buffer[done..done + step].copy_from_slice(pinned.bytes(at, step));
                done += step;
            }
        }
        Some(match &self.body {
            // SAFETY: released records are complete and never change; `bytes` checks the range.
            Body::Mapped(mapping) => unsafe { mapping.bytes(self.at, self.len) },
            Body::Read(buffer) | Body::Window(_, _, buffer) => &buffer[self.at..self.at + self.len],
        })
    }

    /// Its memory, for the next one.
    pub fn into_spare(self) -> Option<Buffer> {
        match self.body {
            Body::Mapped(_) => None,
            Body::Read(buffer) | Body::Window(_, _, buffer) => Some(buffer),
        }
    }
}

fn buffer_for(spare: Option<Buffer>, len: usize) -> Buffer {
    let mut buffer = spare
        .filter(|buffer| buffer.capacity() >= len)
        .unwrap_or_else(|| Buffer::with_capacity(len));
    buffer.set_len(len);
    buffer
}
