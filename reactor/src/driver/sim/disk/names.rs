//! The names on a disk, and the changes they go through.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::content::Inode;

#[derive(Clone, Default)]
pub(super) struct Names {
    pub(super) files: BTreeMap<PathBuf, Arc<Inode>>,
    dirs: BTreeSet<PathBuf>,
}

/// Carries the file itself where it can, so that applying some changes and not others still makes sense.
pub(super) enum Change {
    MakeDir(PathBuf),
    Create(PathBuf, Arc<Inode>),
    Rename(PathBuf, PathBuf, Arc<Inode>),
    RenameDir(PathBuf, PathBuf),
    Remove(PathBuf),
    RemoveDir(PathBuf),
}

/// The directory a name stands in; empty for the root and the working directory, which always exist.
pub(super) fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

impl Names {
    pub(super) fn is_dir(&self, path: &Path) -> bool {
        path.parent().is_none() || self.dirs.contains(path)
    }

    pub(super) fn is_empty_dir_or_missing(&self, path: &Path) -> bool {
        let below = |other: &PathBuf| other.as_path() != path && other.starts_with(path);
        !self.files.keys().any(below) && !self.dirs.iter().any(below)
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::MakeDir(path) => {
                self.dirs.insert(path.clone());
            }
            Change::Create(path, inode) => {
                self.files.insert(path.clone(), inode.clone());
            }
            Change::Rename(from, to, inode) => {
                self.files.remove(from);
                self.files.insert(to.clone(), inode.clone());
            }
            Change::RenameDir(from, to) => self.rename_dir(from, to),
            Change::Remove(path) => {
                self.files.remove(path);
            }
            Change::RemoveDir(path) => {
                self.files.retain(|file, _| !file.starts_with(path));
                self.dirs.retain(|dir| !dir.starts_with(path));
            }
        }
    }

    fn rename_dir(&mut self, from: &Path, to: &Path) {
        let moved = |path: &Path| match path.strip_prefix(from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
            Ok(rest) => to.join(rest),
            Err(_) => path.to_owned(),
        };
        let files = std::mem::take(&mut self.files).into_iter();
        self.files = files.map(|(path, inode)| (moved(&path), inode)).collect();
        self.dirs = self.dirs.iter().map(|path| moved(path)).collect();
    }
}

impl Change {
    /// Whether syncing the directory makes the change durable. Syncing a new directory also keeps the directory itself,
    /// as file systems with a journal do.
    pub(super) fn is_in(&self, directory: &Path) -> bool {
        match self {
            Self::MakeDir(path) => parent(path) == directory || directory.starts_with(path),
            Self::Create(path, _) | Self::Remove(path) | Self::RemoveDir(path) => {
                parent(path) == directory
            }
            Self::Rename(from, to, _) | Self::RenameDir(from, to) => {
                parent(from) == directory || parent(to) == directory
            }
        }
    }

    /// Whether this change takes away a name that the earlier one gave.
    pub(super) fn needs(&self, earlier: &Change) -> bool {
        let gone = match self {
            Self::Rename(from, _, _) | Self::RenameDir(from, _) | Self::Remove(from) => from,
            Self::MakeDir(_) | Self::Create(..) | Self::RemoveDir(_) => return false,
        };
        match earlier {
            Self::Create(path, _) | Self::Rename(_, path, _) | Self::RenameDir(_, path) => {
                path == gone
            }
            Self::MakeDir(_) | Self::Remove(_) | Self::RemoveDir(_) => false,
        }
    }

    /// For the trace.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::MakeDir(path) => format!("mkdir {}", path.display()),
            Self::Create(path, _) => format!("create {}", path.display()),
            Self::Rename(from, to, _) | Self::RenameDir(from, to) => {
                format!("rename {} {}", from.display(), to.display())
            }
            Self::Remove(path) => format!("remove {}", path.display()),
            Self::RemoveDir(path) => format!("rmdir {}", path.display()),
        }
    }
}
