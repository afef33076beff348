//! One state of the directory tree: which name leads to which file. No content, no history.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Id, Kind, ROOT};

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub directory: Id,
    pub name: String,
}

impl Place {
    pub fn new(directory: Id, name: impl Into<String>) -> Place {
        Place {
            directory,
            name: name.into(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    directories: BTreeMap<Id, BTreeMap<String, (Id, Kind)>>,
    /// Where each file and directory but the root is found.
    places: BTreeMap<Id, Place>,
}

impl Default for Tree {
    fn default() -> Tree {
        Tree {
            directories: BTreeMap::from([(ROOT, BTreeMap::new())]),
            places: BTreeMap::new(),
        }
    }
}

impl Tree {
    pub fn lookup(&self, at: &Place) -> Option<(Id, Kind)> {
        self.directories.get(&at.directory)?.get(&at.name).copied()
    }

    /// The entries of a directory by name; `None` if there is no such directory.
    pub fn entries(&self, directory: Id) -> Option<&BTreeMap<String, (Id, Kind)>> {
        self.directories.get(&directory)
    }

    pub fn is_directory(&self, id: Id) -> bool {
        self.directories.contains_key(&id)
    }

    pub fn place(&self, id: Id) -> Option<&Place> {
        self.places.get(&id)
    }

    /// From the root, without a leading slash; `None` if no name leads there.
    pub fn path(&self, id: Id) -> Option<String> {
        if id == ROOT {
            return Some(String::new());
        }
        let place = self.places.get(&id)?;
        let parent = self.path(place.directory)?;
        Some(match parent.is_empty() {
            true => place.name.clone(),
            false => format!("{parent}/{}", place.name),
        })
    }

    pub fn find(&self, path: &str) -> Option<(Id, Kind)> {
        let mut found = (ROOT, Kind::Directory);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            found = self.lookup(&Place::new(found.0, name))?;
        }
        Some(found)
    }

    /// Every file and directory, the root among them.
    pub fn ids(&self) -> impl Iterator<Item = Id> + '_ {
        let named = self.places.keys().copied();
        named.chain(self.directories.keys().copied())
    }

    /// Every file with its path, in order of paths.
    pub fn files(&self) -> Vec<(String, Id)> {
        let mut files: Vec<(String, Id)> = self
            .places
            .keys()
            .filter(|id| !self.is_directory(**id))
            .filter_map(|id| Some((self.path(*id)?, *id)))
            .collect();
        files.sort();
        files
    }

    /// Paths of all directories but the root, parents first.
    pub fn directory_paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = self
            .directories
            .keys()
            .filter(|id| **id != ROOT)
            .filter_map(|id| self.path(*id))
            .collect();
        paths.sort();
        paths
    }

    /// Does what can be done of it: after a cut a directory may lack what an operation in another one needs.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Link { at, id, kind } => {
                if *kind == Kind::Directory {
                    self.directories.entry(*id).or_default();
                }
                self.put(at, (*id, *kind));
            }
            Change::Unlink { at } => {
                if let Some((id, _)) = self.take(at) {
                    self.directories.remove(&id);
                }
            }
            Change::Rename { from, to } => {
                if from != to
                    && let Some(moved) = self.take(from)
                {
                    self.put(to, moved);
                }
            }
        }
    }

    fn put(&mut self, at: &Place, child: (Id, Kind)) {
        // The directory's own link may still be unsynced: its entries are kept apart until it is reachable.
        let entries = self.directories.entry(at.directory).or_default();
        if let Some((replaced, _)) = entries.insert(at.name.clone(), child) {
            self.places.remove(&replaced);
            self.directories.remove(&replaced);
        }
        self.places.insert(child.0, at.clone());
    }

    fn take(&mut self, at: &Place) -> Option<(Id, Kind)> {
        let taken = self.directories.get_mut(&at.directory)?.remove(&at.name)?;
        self.places.remove(&taken.0);
        Some(taken)
    }

    /// Forgets what no path leads to.
    pub(super) fn keep_reachable(&mut self) {
        let reachable: BTreeSet<Id> = self.ids().filter(|id| self.path(*id).is_some()).collect();
        self.directories.retain(|id, _| reachable.contains(id));
        self.places.retain(|id, _| reachable.contains(id));
    }
}
