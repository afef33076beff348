//! The directory tree, twice: as processes see it, and as a power cut would leave it. Between the two lies an
//! ordered list of operations that no directory sync has covered yet. Pure logic: the mounted disk and the replay
//! of a trace share it.
//!
//! The rule is the weakest a journalling file system may keep: within one directory operations survive in order,
//! between directories in any order, and an operation on two directories survives in both or in neither.

mod tree;

use std::collections::BTreeSet;

pub use tree::{Place, Tree};

/// A file or a directory, for as long as anybody knows it. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

pub const ROOT: Id = Id(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
}

/// One operation on names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Link {
        at: Place,
        id: Id,
        kind: Kind,
    },
    Unlink {
        at: Place,
    },
    /// Replaces what has the new name.
    Rename {
        from: Place,
        to: Place,
    },
}

impl Change {
    fn directories(&self) -> [Id; 2] {
        match self {
            Change::Link { at, .. } | Change::Unlink { at } => [at.directory; 2],
            Change::Rename { from, to } => [from.directory, to.directory],
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Names {
    live: Tree,
    durable: Tree,
    pending: Vec<Change>,
}

impl Names {
    pub fn live(&self) -> &Tree {
        &self.live
    }

    /// What a power cut leaves if it leaves no unsynced operation.
    pub fn durable(&self) -> &Tree {
        &self.durable
    }

    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The caller has checked that the operation is possible.
    pub fn apply(&mut self, change: Change) {
        self.live.apply(&change);
        self.pending.push(change);
    }

    /// Everything done in this directory survives from now on, with what it builds upon.
    pub fn sync(&mut self, directory: Id) {
        let mut wanted = BTreeSet::from([directory]);
        let mut keep = vec![false; self.pending.len()];
        for (change, keep) in self.pending.iter().zip(&mut keep).rev() {
            let directories = change.directories();
            if directories.iter().any(|id| wanted.contains(id)) {
                wanted.extend(directories);
                *keep = true;
            }
        }
        let pending = std::mem::take(&mut self.pending);
        for (change, keep) in pending.into_iter().zip(keep) {
            match keep {
                true => self.durable.apply(&change),
                false => self.pending.push(change),
            }
        }
    }

    /// One tree a power cut may leave. `survives` is asked for each unsynced operation in order; a directory whose
    /// operation was lost loses all later ones.
    pub fn after_cut(&self, mut survives: impl FnMut(&Change) -> bool) -> Tree {
        let mut tree = self.durable.clone();
        let mut ended = BTreeSet::new();
        for change in &self.pending {
            let directories = change.directories();
            let possible = !directories.iter().any(|id| ended.contains(id));
            if possible && survives(change) {
                tree.apply(change);
            } else {
                ended.extend(directories);
            }
        }
        tree.keep_reachable();
        tree
    }

    /// Starts again from a tree that is durable.
    pub fn restart(tree: Tree) -> Names {
        Names {
            live: tree.clone(),
            durable: tree,
            pending: Vec::new(),
        }
    }

    /// Every file and directory that may still get a name: its content must be kept.
    pub fn known(&self) -> BTreeSet<Id> {
        let linked = self.pending.iter().filter_map(|change| match change {
            Change::Link { id, .. } => Some(*id),
            _ => None,
        });
        self.live
            .ids()
            .chain(self.durable.ids())
            .chain(linked)
            .collect()
    }
}

#[cfg(test)]
mod tests;
