//! How windows that outlive their process are called.

use reactor::{LoopedMemory, fs};
use std::io;
use std::path::{Path, PathBuf};

const PREFIX: &str = "orbitmq-";
const SUFFIX: &str = ".window";

/// `store`: its id in hexadecimal digits. `generation`: which life of it.
pub fn name(store: &str, generation: u64) -> String {
    format!("{}{generation}{SUFFIX}", of_store(store))
}

/// What the names of all windows of this store begin with.
fn of_store(store: &str) -> String {
    format!("{PREFIX}{store}.")
}

pub fn is_of(name: &str, store: &str) -> bool {
    name.starts_with(&of_store(store)) && name.ends_with(SUFFIX)
}

/// A window that no process has open: what a killed broker left for the next one on its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleWindow {
    pub path: PathBuf,
    pub bytes: u64,
}

impl IdleWindow {
    /// All of a directory, of all stores, by name; those of other users are not looked at. Blocks.
    pub fn all_in(dir: &Path) -> io::Result<Vec<IdleWindow>> {
        let mut names = fs::list(dir)?;
        names.retain(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        names.sort();
        let paths = names.into_iter().map(|name| dir.join(name));
        let idle = paths.filter_map(|path| {
            let bytes = LoopedMemory::idle_bytes(&path).ok()??;
            Some(IdleWindow { path, bytes })
        });
        Ok(idle.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 64 << 10;

    #[test]
    fn only_windows_that_nobody_has_are_idle() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |store, life| dir.path().join(name(store, life));
        let make = |path: &Path| LoopedMemory::create(path, LEN, 4096).expect("some memory");
        let held = make(&path("aa", 1));
        drop(make(&path("bb", 12)));
        drop(make(&dir.path().join("another-file")));
        let idle = IdleWindow::all_in(dir.path()).expect("listed");
        let bytes = LEN as u64 + 4096;
        assert_eq!(
            idle,
            [IdleWindow {
                path: path("bb", 12),
                bytes
            }]
        );
        drop(held);
        assert_eq!(IdleWindow::all_in(dir.path()).expect("listed").len(), 2);
    }

    #[test]
    fn a_name_tells_the_store() {
        assert!(is_of(&name("0a", 3), "0a"));
        assert!(!is_of(&name("0a", 3), "0"));
        assert!(!is_of("orbitmq-0a.3.window.tmp", "0a"));
    }
}
