//! The window across lives: what a killed process had not written yet goes to its files before the log is read, and
//! a window is made for this life.
//!
//! `orbit/id` names the store, its life, and the place of that life's window. A window counts only if it is this
//! store's, of this run of the machine, of the last life, and its header is whole; then all its bytes that no companion
//! vouches for are written to the files again, whichever flusher is used from now on: a sync may have failed and
//! nobody lived to hear of it. Otherwise it is passed over and the files alone decide. The old window stays until the log has been recovered: an opening that is refused loses
//! nothing.

mod left;

use super::files;
use super::find_files;
use super::unsynced;
use crate::LogOffset;
use crate::config::{Config, FlusherKind, WindowDir};
use crate::layout::Layout;
use crate::segment::{Medium, Segment};
use crate::store::{OpenError, on_a_full_disk};
use crate::window::{BLOCK_BYTES, HEADER_BYTES, Identity, Window, block_of, names};
use reactor::{Buffer, LoopedMemory, fs, offload};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where shared memory is on Linux.
const SHARED_MEMORY_DIR: &str = "/dev/shm";
/// How long a window that is in use is waited for, and how often it is tried.
const WINDOW_PATIENCE: Duration = Duration::from_secs(2);
const WINDOW_PAUSE: Duration = Duration::from_millis(5);

/// How this life writes its log, and what its window is begun with.
pub struct Opened {
    pub medium: Medium,
    id_path: PathBuf,
    /// Of this life.
    id: Id,
    identity: Identity,
    /// The last life's window, if this one uses another.
    dropped: Option<PathBuf>,
}

/// What `orbit/id` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Id {
    store: [u8; 16],
    window: Option<PathBuf>,
    /// Raised by each opening.
    generation: u64,
    boot: [u8; 16],
}

/// Writes what the last life left in its window, and makes the window of this one. The lock is held.
pub async fn open(config: &Config, layout: &Layout) -> Result<Opened, OpenError> {
    let id_path = layout.id();
    let boot = reactor::boot_id().map_err(OpenError::io(&id_path))?;
    let old = Id::load(&id_path, boot).map_err(OpenError::io(&id_path))?;
    let left = match &old.window {
        Some(path) => adopt(config, layout, &old, boot, path).await?,
        None => None,
    };
    let mut id = Id {
        generation: old.generation + 1,
        window: None,
        boot,
        ..old
    };
    let mut dropped = left.is_some().then(|| old.window.clone()).flatten();
    let medium = match config.flusher {
        FlusherKind::Mmap => Medium::Mapped,
        FlusherKind::Direct => {
            let mut wanted = wanted_path(config, &id);
            let mut kept = None;
            // One of the same place and size is in memory already.
            if let (Some(memory), Some(path), Some(new)) = (left, &old.window, &mut wanted)
                && path.parent() == new.parent()
                && memory.len() as u64 == config.window.bytes
            {
                new.clone_from(path);
                (kept, dropped) = (Some(memory), None);
            }
            let shown = wanted.clone().unwrap_or_default();
            let window = make(config, wanted, kept).await;
            let window = window.map_err(OpenError::io(shown))?;
            id.window = window.path().map(Path::to_path_buf);
            Medium::Direct(Arc::new(window))
        }
    };
    let identity = id.identity(config, boot);
    Ok(Opened {
        medium,
        id_path,
        id,
        identity,
        dropped,
    })
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
    Some(dir.join(names::name(&hex(&id.store), id.generation)))
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
        let path = path.filter(|_| outlives_process);
        Ok(Window::new(memory, path))
    };
    offload("make the window", made).await
}

/// Writes what only the window has to the log files. Returns the memory, to be used again or dropped.
async fn adopt(
    config: &Config,
    layout: &Layout,
    old: &Id,
    boot: [u8; 16],
    path: &Path,
) -> Result<Option<Arc<LoopedMemory>>, OpenError> {
    let found = find(path).await.map_err(|error| {
        let source = io::Error::new(
            error.kind(),
            format!(
                "the window of this store cannot be used ({error}): if the store is a copy, or what is in the window is to be given up, remove {}",
                layout.id().display()
            ),
        );
        OpenError::io(path)(source)
    })?;
    let Some(memory) = found.map(Arc::new) else {
        if old.boot == boot && fs::exists(&layout.abort()) {
            tracing::warn!(
                path = %path.display(),
                "the window of the last life is gone: what only it had is lost"
            );
        }
        return Ok(None);
    };
    if !memory.len().is_power_of_two() {
        tracing::warn!(path = %path.display(), "an old window is passed over: it was cut short");
        return Ok(Some(memory));
    }
    let window = Window::new(memory.clone(), Some(path.to_path_buf()));
    let left = match window.left(&old.identity(config, boot)) {
        Ok(left) => left,
        Err(why) => {
            tracing::warn!(path = %path.display(), why, "an old window is passed over");
            return Ok(Some(memory));
        }
    };
    let files = find_files(config, layout)?;
    if files::is_rocketmqs(layout, &files.files) {
        tracing::warn!(path = %path.display(), "an old window is passed over: RocketMQ had the store since");
        return Ok(Some(memory));
    }
    left::write(config, layout, window, left, &files.files).await?;
    Ok(Some(memory))
}

/// A process that has ended lets go of its window a moment later, when its last write is over.
async fn find(path: &Path) -> io::Result<Option<LoopedMemory>> {
    let latest = reactor::now() + WINDOW_PATIENCE;
    loop {
        match LoopedMemory::find(path, HEADER_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && reactor::now() < latest => {
                reactor::sleep(WINDOW_PAUSE).await;
            }
            found => return found,
        }
    }
}

impl Opened {
    /// Begins this life at the end of the log, in the segment that holds it. What lies behind the end in its block
    /// becomes zero, durably: a stale record there would line up with the next one.
    pub async fn begin(
        &self,
        layout: &Layout,
        segment: &Segment,
        end: u64,
    ) -> Result<(), OpenError> {
        let id_path = &self.id_path;
        let save = || on_a_full_disk(layout, || self.id.save(id_path));
        let Medium::Direct(window) = &self.medium else {
            save().map_err(OpenError::io(id_path))?;
            return self.drop_old();
        };
        let block = tail_block(segment, end).await;
        let block = block
            .inspect_err(|_| unsynced::note(layout, LogOffset(block_of(end)), LogOffset(end)))
            .map_err(OpenError::io(segment.path()))?;
        let laid = (end - block_of(end)) as usize;
        // From here on the last life's window is not believed any more.
        save().map_err(OpenError::io(id_path))?;
        window
            .begin(&self.identity, end, &block[..laid])
            .map_err(OpenError::io(window.path().unwrap_or(id_path)))?;
        self.drop_old()
    }

    fn drop_old(&self) -> Result<(), OpenError> {
        if let Some(path) = &self.dropped {
            LoopedMemory::remove(path).map_err(OpenError::io(path))?;
        }
        let dirs = [&self.dropped, &self.id.window];
        for dir in dirs.into_iter().flatten().filter_map(|path| path.parent()) {
            self.remove_orphans(dir);
        }
        Ok(())
    }

    /// Windows of this store that no `orbit/id` names any more: a process died between making and naming one.
    fn remove_orphans(&self, dir: &Path) {
        let store = hex(&self.id.store);
        for name in fs::list(dir).unwrap_or_default() {
            let path = dir.join(&name);
            // One that is in use belongs to a copy of this store.
            if names::is_of(&name, &store)
                && self.id.window.as_deref() != Some(&path)
                && let Ok(Some(_)) = LoopedMemory::find(&path, HEADER_BYTES)
                && let Err(error) = LoopedMemory::remove(&path)
            {
                tracing::warn!(path = %path.display(), %error, "an old window is left");
            }
        }
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
    fn identity(&self, config: &Config, boot: [u8; 16]) -> Identity {
        Identity {
            store: self.store,
            boot,
            segment_bytes: config.segment_bytes,
            generation: self.generation,
        }
    }

    /// A new one if there is none, or none that can be read. Blocks.
    fn load(path: &Path, boot: [u8; 16]) -> io::Result<Id> {
        // For a moment of each replacement only the old one is there, and then it is still true.
        for path in [path.to_path_buf(), path.with_extension("bak")] {
            if fs::exists(&path)
                && let Some(id) = Id::parse(&fs::read(&path)?)
            {
                return Ok(id);
            }
        }
        let halves = [reactor::random(), reactor::random()].map(u64::to_be_bytes);
        let mut store = [0; 16];
        store[..8].copy_from_slice(&halves[0]);
        store[8..].copy_from_slice(&halves[1]);
        Ok(Id {
            store,
            window: None,
            generation: 0,
            boot,
        })
    }

    /// Four lines: the store's number, its window's place, how often it was opened, the machine's run.
    fn parse(bytes: &[u8]) -> Option<Id> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        let number = |line: &str| match line.len() {
            32 => u128::from_str_radix(line, 16).ok().map(u128::to_be_bytes),
            _ => None,
        };
        let store = number(lines.next()?)?;
        let window = Some(lines.next()?).filter(|path| !path.is_empty());
        Some(Id {
            store,
            window: window.map(PathBuf::from),
            generation: lines.next()?.parse().ok()?,
            boot: number(lines.next()?)?,
        })
    }

    /// Blocks.
    fn save(&self, path: &Path) -> io::Result<()> {
        let window = self.window.as_deref().unwrap_or(Path::new(""));
        let window = window.to_str().expect("the settings say that it is text");
        let text = format!(
            "{}\n{window}\n{}\n{}\n",
            hex(&self.store),
            self.generation,
            hex(&self.boot)
        );
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
        let boot = [9; 16];
        let mut id = Id::load(&path, boot).expect("a new one");
        for window in [None, Some(PathBuf::from("/dev/shm/a b"))] {
            (id.window, id.generation) = (window, id.generation + 1);
            id.save(&path).expect("it can be written");
            assert_eq!(Id::load(&path, [0; 16]).expect("it is there"), id);
        }
        std::fs::remove_file(&path).expect("it is there");
        let before = Id::load(&path, boot).expect("its backup");
        assert_eq!((before.store, before.generation), (id.store, 1));
        std::fs::remove_file(path.with_extension("bak")).expect("it is there");
        std::fs::write(&path, "nonsense").expect("it can be written");
        let new = Id::load(&path, boot).expect("a new one");
        assert_ne!(new.store, id.store);
    }
}
