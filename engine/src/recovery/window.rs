//! The window across lives: what a killed process had not written yet goes to its files before the log is read, and
//! a window is made for this life.
//!
//! `orbit/id` names the store and the place of its last window. A window counts only if it is this store's, of this
//! run of the machine, and its header is whole; then the bytes between its two ends are written to the files again,
//! whichever flusher is used from now on. Otherwise it is passed over and the files alone decide.

use super::files::{self, FoundFile, Problem};
use crate::config::{Config, FlusherKind, WindowDir};
use crate::layout::Layout;
use crate::segment::{Medium, Segment};
use crate::store::OpenError;
use crate::window::{BLOCK_BYTES, HEADER_BYTES, Identity, Left, Window, block_of};
use reactor::{Buffer, File, LoopedMemory, OpenOptions, fs, offload};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where shared memory is on Linux.
const SHARED_MEMORY_DIR: &str = "/dev/shm";
/// Bytes per write when a window is emptied.
const ADOPT_BYTES: u64 = 1 << 20;

/// How this life writes its log, and what its window is begun with.
pub struct Opened {
    pub medium: Medium,
    identity: Identity,
}

/// What `orbit/id` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Id {
    store: [u8; 16],
    window: Option<PathBuf>,
}

/// Writes what the last life left in its window, and makes the window of this one. The lock is held.
pub async fn open(config: &Config, layout: &Layout) -> Result<Opened, OpenError> {
    let path = layout.id();
    let mut id = Id::load(&path).map_err(OpenError::io(&path))?;
    let identity = Identity {
        store: id.store,
        boot: reactor::boot_id().map_err(OpenError::io(&path))?,
        segment_bytes: config.segment_bytes,
    };
    let old = match id.window.take() {
        Some(window) => adopt(config, layout, &identity, window).await?,
        None => None,
    };
    let window = match config.flusher {
        FlusherKind::Mmap => None,
        FlusherKind::Direct => Some(wanted_path(config, &id)),
    };
    // What is kept is only a window of the same place and size: its pages are in memory already.
    let (kept, dropped) = match (old, &window) {
        (Some((path, memory)), Some(Some(wanted)))
            if path == *wanted && memory.len() as u64 == config.window.bytes =>
        {
            (Some(memory), None)
        }
        (Some((path, _)), _) => (None, Some(path)),
        (None, _) => (None, None),
    };
    if let Some(path) = dropped {
        LoopedMemory::remove(&path).map_err(OpenError::io(path))?;
    }
    let Some(window) = window else {
        id.save(&path).map_err(OpenError::io(&path))?;
        let medium = Medium::Mapped;
        return Ok(Opened { medium, identity });
    };
    id.window.clone_from(&window);
    let window = make(config, window, kept).await.map_err(|source| {
        let path = id.window.clone().unwrap_or_default();
        OpenError::Io { path, source }
    })?;
    if window.path().is_none() {
        id.window = None;
    }
    id.save(&path).map_err(OpenError::io(&path))?;
    let medium = Medium::Direct(Arc::new(window));
    Ok(Opened { medium, identity })
}

/// The window's place; `None`: it has none and ends with the process.
fn wanted_path(config: &Config, id: &Id) -> Option<PathBuf> {
    let dir = match &config.window.dir {
        WindowDir::None => return None,
        WindowDir::At(dir) => dir.as_path(),
        WindowDir::Auto => Path::new(SHARED_MEMORY_DIR),
    };
    let chosen = matches!(config.window.dir, WindowDir::At(_));
    let lost = match LoopedMemory::lost_in(dir) {
        None if !chosen && reactor::is_in_container() => {
            Some("this is a container, whose memory may go with it".to_owned())
        }
        lost => lost,
    };
    if let Some(why) = lost {
        tracing::info!(
            dir = %dir.display(),
            why,
            "the window does not outlive the process: senders are told after the write"
        );
        return None;
    }
    Some(dir.join(format!("orbitmq-{}.window", hex(&id.store))))
}

/// The memory of this life's window.
async fn make(
    config: &Config,
    path: Option<PathBuf>,
    kept: Option<Arc<LoopedMemory>>,
) -> io::Result<Window> {
    let bytes = config.window.bytes as usize;
    let made = move || {
        let named = match (kept, &path) {
            (Some(memory), _) => Some(memory),
            (None, None) => None,
            (None, Some(path)) => match LoopedMemory::create(path, bytes, HEADER_BYTES) {
                Ok(memory) => Some(Arc::new(memory)),
                Err(error) => {
                    tracing::warn!(
                        path = %path.display(), bytes, %error,
                        "no shared memory for the window: senders are told after the write"
                    );
                    None
                }
            },
        };
        let outlives_process = named.is_some();
        let memory = match named {
            Some(memory) => memory,
            None => Arc::new(LoopedMemory::anonymous(bytes, HEADER_BYTES)?),
        };
        memory.populate()?;
        if let Err(error) = memory.lock() {
            tracing::warn!(
                bytes, %error,
                "the window is not locked in memory and may be swapped out; raise the limit of locked memory (ulimit -l)"
            );
        }
        let path = path.filter(|_| outlives_process);
        Ok(Window::new(memory, path))
    };
    offload("bring the window into memory", made).await
}

/// Writes what only the window has to the log files. Returns the memory, to be used again or dropped.
async fn adopt(
    config: &Config,
    layout: &Layout,
    identity: &Identity,
    path: PathBuf,
) -> Result<Option<(PathBuf, Arc<LoopedMemory>)>, OpenError> {
    let found = match LoopedMemory::find(&path, HEADER_BYTES) {
        Ok(Some(memory)) => Arc::new(memory),
        Ok(None) => return Ok(None),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "an old window cannot be looked at");
            return Ok(None);
        }
    };
    if !found.len().is_power_of_two() {
        tracing::info!(path = %path.display(), "an old window is passed over: it was cut short");
        return Ok(Some((path, found)));
    }
    let window = Window::new(found.clone(), Some(path.clone()));
    match window.left(identity) {
        Ok(left) if left.on_disk < left.written => {
            let files = files::find(layout.log_dirs(), config.segment_bytes)
                .map_err(OpenError::io(layout.root()))?;
            let is_refused = |problem: &Problem| !matches!(problem, Problem::Unfinished(_));
            if files.problems.iter().any(is_refused) {
                return Ok(Some((path, found))); // The store will not open, and nothing is touched.
            }
            write_left(config, &window, left, &files.files).await?;
        }
        Ok(_) => {}
        Err(why) => {
            tracing::info!(path = %path.display(), why, "an old window is passed over");
        }
    }
    Ok(Some((path, found)))
}

async fn write_left(
    config: &Config,
    window: &Window,
    left: Left,
    files: &[FoundFile],
) -> Result<(), OpenError> {
    tracing::info!(
        from = left.on_disk,
        to = left.written,
        "writing what a killed process left in memory"
    );
    let mut at = block_of(left.on_disk);
    for file in files {
        let end = file.base + config.segment_bytes;
        if at < file.base || at >= end || at >= left.written {
            continue;
        }
        let to = left.written.min(end);
        write_range(window, at..to, file)
            .await
            .map_err(OpenError::io(&file.path))?;
        at = to;
    }
    if at < left.written {
        tracing::error!(
            from = at,
            to = left.written,
            "the log files that these bytes of memory belong to are missing: they are given up"
        );
    }
    Ok(())
}

async fn write_range(
    window: &Window,
    range: std::ops::Range<u64>,
    file: &FoundFile,
) -> io::Result<()> {
    let options = OpenOptions {
        read: true,
        write: true,
        direct: true,
        ..OpenOptions::default()
    };
    let open = File::open(&file.path, options)?;
    let mut at = range.start;
    while at < range.end {
        let to = range.end.min(at + ADOPT_BYTES.min(window.bytes() / 4));
        let mut buffer = Buffer::with_capacity((to - at) as usize);
        buffer.set_len((to - at).next_multiple_of(BLOCK_BYTES) as usize);
        window.copy_laid(at, &mut buffer[..(to - at) as usize]);
        let (written, _) = open.write_at(buffer, at - file.base).await;
        written?;
        at = to;
    }
    Ok(())
}

impl Opened {
    /// Begins this life's window at the end of the log, in the segment that holds it. What lies behind the end in its
    /// block becomes zero, durably: a stale record there would line up with the next one.
    pub async fn begin(&self, segment: &Segment, end: u64) -> Result<(), OpenError> {
        let Medium::Direct(window) = &self.medium else {
            return Ok(());
        };
        let block = tail_block(segment, end)
            .await
            .map_err(OpenError::io(segment.path()))?;
        let laid = (end - block_of(end)) as usize;
        window.begin(&self.identity, end, &block[..laid]);
        Ok(())
    }
}

/// The block that holds `end`, with zeros from there on. Empty if the end is the segment's.
async fn tail_block(segment: &Segment, end: u64) -> io::Result<Buffer> {
    let at = block_of(end) - segment.base();
    let len = BLOCK_BYTES as usize;
    if at == segment.bytes() {
        return Ok(Buffer::with_capacity(0));
    }
    let (read, mut block) = segment
        .file()
        .read_at(Buffer::with_capacity(len), at, len)
        .await;
    if read? < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let behind = &mut block[(end - block_of(end)) as usize..];
    if behind.iter().all(|byte| *byte == 0) {
        return Ok(block);
    }
    behind.fill(0);
    let (written, block) = segment.file().write_at(block, at).await;
    written?;
    segment.file().sync_data().await?;
    Ok(block)
}

impl Id {
    /// A new one if there is none, or none that can be read. Blocks.
    fn load(path: &Path) -> io::Result<Id> {
        if fs::exists(path)
            && let Some(id) = Id::parse(&fs::read(path)?)
        {
            return Ok(id);
        }
        let halves = [reactor::random(), reactor::random()].map(u64::to_be_bytes);
        let mut store = [0; 16];
        store[..8].copy_from_slice(&halves[0]);
        store[8..].copy_from_slice(&halves[1]);
        Ok(Id {
            store,
            window: None,
        })
    }

    fn parse(bytes: &[u8]) -> Option<Id> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (id, rest) = text.split_once('\n')?;
        if id.len() != 32 {
            return None;
        }
        let store = u128::from_str_radix(id, 16).ok()?.to_be_bytes();
        let window = rest.strip_suffix('\n').filter(|path| !path.is_empty());
        Some(Id {
            store,
            window: window.map(PathBuf::from),
        })
    }

    /// Blocks.
    fn save(&self, path: &Path) -> io::Result<()> {
        let window = self.window.as_deref().map_or(String::new(), |path| {
            path.to_string_lossy().into_owned() + "\n"
        });
        let text = hex(&self.store) + "\n" + &window;
        if fs::exists(path) && fs::read(path)? == text.as_bytes() {
            return Ok(());
        }
        fs::replace(path, text.as_bytes())
    }
}

fn hex(id: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_and_the_place_of_the_window_are_read_back() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("id");
        let mut id = Id::load(&path).expect("a new one");
        id.save(&path).expect("it can be written");
        assert_eq!(Id::load(&path).expect("it is there"), id);
        id.window = Some("/dev/shm/a b".into());
        id.save(&path).expect("it can be written");
        assert_eq!(Id::load(&path).expect("it is there"), id);
        std::fs::write(&path, "nonsense").expect("it can be written");
        assert_ne!(Id::load(&path).expect("a new one").store, id.store);
    }
}
