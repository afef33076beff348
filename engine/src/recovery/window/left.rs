//! What a killed process has left in its window goes to the log files, before the log is read.
//!
//! First all of it is compared with what the files hold: bytes there that are neither zero nor these are somebody
//! else's, and then nothing is written. Both go on in several places at once: a start waits for them.

use crate::checkpoint;
use crate::config::Config;
use crate::layout::Layout;
use crate::recovery::files::FoundFile;
use crate::store::OpenError;
use crate::window::{BLOCK_BYTES, Left, Window, block_of, is_zero};
use reactor::{Buffer, File, OpenOptions};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;

/// Bytes that are read or written at once, and how often that is under way.
const PIECE_BYTES: u64 = 1 << 20;
const PIECES_UNDER_WAY: usize = 4;

/// Writes what no companion vouches for. The window is not used by anybody any more.
pub async fn write(
    config: &Config,
    layout: &Layout,
    window: Window,
    left: Left,
    files: &[FoundFile],
) -> Result<(), OpenError> {
    let vouched = checkpoint::vouched_to(layout).map_err(OpenError::io(layout.companions()))?;
    let mut at = first_to_write(left, vouched);
    if at >= left.written {
        return Ok(());
    }
    tracing::info!(
        from = at,
        to = left.written,
        "writing what a killed process left in memory"
    );
    let window = Rc::new(window);
    let mut stretches = Vec::new();
    for file in files {
        let end = file.base + config.segment_bytes;
        if (file.base..end).contains(&at) && at < left.written {
            let to = left.written.min(end);
            let stretch = Stretch::open(&window, file, at..to);
            stretches.push(stretch.map_err(OpenError::io(&file.path))?);
            at = to;
        }
    }
    if at < left.written {
        // Its directory may not be mounted: nothing is given up by guessing.
        let path = layout.segment(at / config.segment_bytes * config.segment_bytes);
        return Err(OpenError::MissingSegment { path });
    }
    for stretch in &stretches {
        stretch
            .compare()
            .await
            .map_err(OpenError::io(&stretch.place.path))?;
    }
    for stretch in &stretches {
        stretch
            .write()
            .await
            .map_err(OpenError::io(&stretch.place.path))?;
    }
    Ok(())
}

/// The first block that may not be durable and is in the window.
fn first_to_write(left: Left, vouched: u64) -> u64 {
    let held = left.start.next_multiple_of(BLOCK_BYTES);
    block_of(left.on_disk).min(block_of(vouched).max(held))
}

/// What belongs into one file.
struct Stretch {
    place: Rc<Place>,
    /// Log offsets, from the start of a block.
    range: Range<u64>,
}

/// What the tasks of a stretch share.
struct Place {
    path: PathBuf,
    window: Rc<Window>,
    file: File,
    base: u64,
    /// New memory costs a page fault for each page of it.
    spares: RefCell<Vec<[Buffer; 2]>>,
}

impl Stretch {
    fn open(window: &Rc<Window>, file: &FoundFile, range: Range<u64>) -> io::Result<Stretch> {
        let options = OpenOptions {
            read: true,
            write: true,
            direct: true,
            ..OpenOptions::default()
        };
        Ok(Stretch {
            place: Rc::new(Place {
                path: file.path.clone(),
                window: window.clone(),
                file: File::open(&file.path, options)?,
                base: file.base,
                spares: RefCell::default(),
            }),
            range,
        })
    }

    /// Refuses a file that holds something else where the window's bytes belong: anything but those, or zeros.
    async fn compare(&self) -> io::Result<()> {
        self.for_each_piece("compare the log with the window", Place::compare)
            .await
    }

    async fn write(&self) -> io::Result<()> {
        self.for_each_piece("empty the window", Place::write)
            .await?;
        // This life's window begins behind: should a later sync fail, nobody has these bytes any more.
        self.place.file.sync_data().await
    }

    /// Does something with every piece, in order, several at a time; behind one that fails none is begun. When this
    /// resumes, nothing is under way.
    async fn for_each_piece(
        &self,
        name: &'static str,
        job: impl AsyncFn(&Place, Range<u64>) -> io::Result<()> + Copy + 'static,
    ) -> io::Result<()> {
        let step = PIECE_BYTES.min(self.place.window.write_bytes_max());
        let mut under_way = VecDeque::new();
        let mut outcome = Ok(());
        for from in self.range.clone().step_by(step as usize) {
            if under_way.len() == PIECES_UNDER_WAY {
                outcome = ended(under_way.pop_front()).await;
                if outcome.is_err() {
                    break;
                }
            }
            let (place, piece) = (self.place.clone(), from..self.range.end.min(from + step));
            under_way.push_back(reactor::spawn(
                name,
                async move { job(&place, piece).await },
            ));
        }
        while !under_way.is_empty() {
            let last = ended(under_way.pop_front()).await;
            outcome = outcome.and(last);
        }
        outcome
    }
}

async fn ended(task: Option<reactor::Task<io::Result<()>>>) -> io::Result<()> {
    match task {
        // Cancelled: the core is ending.
        Some(task) => task.await.ok_or(io::ErrorKind::Interrupted)?,
        None => Ok(()),
    }
}

impl Place {
    async fn compare(&self, piece: Range<u64>) -> io::Result<()> {
        let len = (piece.end - piece.start) as usize;
        let whole = len.next_multiple_of(BLOCK_BYTES as usize);
        let spare = self.spares.borrow_mut().pop();
        let [found, mut laid] =
            spare.unwrap_or_else(|| [(); 2].map(|()| Buffer::with_capacity(whole)));
        let at = piece.start - self.base;
        let (read, found) = self.file.read_at(found, at, whole).await;
        let compared = match read {
            Ok(read) if read == whole => {
                laid.set_len(len);
                self.window.copy_laid(piece.start, &mut laid);
                match foreign_at(&found[..len], &laid) {
                    None => Ok(()),
                    Some(n) => Err(io::Error::other(format!(
                        "at log offset {} it is not what the last process left in memory: the log was changed since; to give that memory up, remove orbit/id",
                        piece.start + n as u64
                    ))),
                }
            }
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => {
                // Writing it again is what may heal it.
                tracing::warn!(path = %self.path.display(), log_offset = piece.start, %error, "a part of the log that is to be written again cannot be read");
                Ok(())
            }
        };
        self.spares.borrow_mut().push([found, laid]);
        compared
    }

    async fn write(&self, piece: Range<u64>) -> io::Result<()> {
        let last = block_of(piece.end);
        let tail = (last < piece.end).then(|| {
            let mut block = Buffer::with_capacity(BLOCK_BYTES as usize);
            block.set_len(BLOCK_BYTES as usize);
            self.window
                .copy_laid(last, &mut block[..(piece.end - last) as usize]);
            block
        });
        let part = self.window.part(piece.start, last - piece.start);
        let at = piece.start - self.base;
        let memory = self.window.memory();
        let (written, _) = self
            .file
            .write_looped_at(memory, part, tail, at, false)
            .await;
        written
    }
}

/// Where `found` is neither zero nor what was laid there. Most blocks are one or the other.
fn foreign_at(found: &[u8], laid: &[u8]) -> Option<usize> {
    let block = BLOCK_BYTES as usize;
    let blocks = found.chunks(block).zip(laid.chunks(block)).zip(0..);
    blocks
        .filter(|((found, laid), _)| found != laid && !is_zero(found))
        .find_map(|((found, laid), number)| {
            let is_foreign = |(found, laid): (&u8, &u8)| *found != 0 && found != laid;
            let at = found.iter().zip(laid).position(is_foreign)?;
            Some(number * block + at)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// As one would say it of single bytes.
        #[test]
        fn a_byte_that_is_neither_zero_nor_as_it_was_laid_is_found(
            laid in proptest::collection::vec(0u8..3, 0..3 * BLOCK_BYTES as usize),
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), 0u8..3), 0..4),
            empty in 0usize..4,
        ) {
            let mut found = laid.clone();
            // A block that was never written, and single bytes of all kinds.
            if let Some(block) = found.chunks_mut(BLOCK_BYTES as usize).nth(empty) {
                block.fill(0);
            }
            for (at, byte) in changes.iter().filter(|_| !laid.is_empty()) {
                found[at.index(laid.len())] = *byte;
            }
            let expected = (0..laid.len()).find(|&n| found[n] != 0 && found[n] != laid[n]);
            prop_assert_eq!(foreign_at(&found, &laid), expected);
        }
    }
}
