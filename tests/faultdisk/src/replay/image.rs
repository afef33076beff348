//! A trace played up to some event: the names and contents that are durable, and everything that may or may not be.
//! Pure.

use std::collections::BTreeMap;

use super::content::{Choice, Content, Moment};
use crate::chance::Odds;
use crate::names::{Change, Id, Kind, Names};
use crate::trace::Event;

#[derive(Default)]
pub struct Image {
    names: Names,
    files: BTreeMap<Id, Content>,
    now: Moment,
}

/// A whole disk, by paths.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    pub directories: Vec<String>,
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Image {
    pub fn apply(&mut self, event: &Event) {
        self.now += 1;
        let now = self.now;
        match event {
            Event::Names(change) => {
                if let Change::Link {
                    id,
                    kind: Kind::File,
                    ..
                } = change
                {
                    self.files.insert(*id, Content::default());
                }
                self.names.apply(change.clone());
            }
            Event::Write { id, offset, bytes } => self.file(*id).write(now, *offset, bytes),
            Event::Zero { id, offset, len } => self.file(*id).zero(now, *offset, *len),
            Event::SetLen { id, len } => self.file(*id).set_len(now, *len),
            Event::SyncRange { id, offset, len } => self.file(*id).sync_range(*offset, *len),
            Event::SyncLen { id } => self.file(*id).sync_len(),
            Event::Sync { id } => self.file(*id).sync(),
            Event::SyncDirectory { id } => {
                self.names.sync(*id);
                self.tidy();
            }
            Event::Mark(_) => {}
        }
    }

    fn file(&mut self, id: Id) -> &mut Content {
        // A file may be written to while no name leads to it any more.
        self.files.entry(id).or_default()
    }

    fn tidy(&mut self) {
        let known = self.names.known();
        self.files.retain(|id, _| known.contains(id));
    }

    /// How many sectors, lengths and names a cut could take.
    pub fn unsynced(&self) -> usize {
        let contents: usize = self.files.values().map(|file| file.moments().count()).sum();
        contents + self.names.pending()
    }

    /// What is there whatever happens.
    pub fn durable(&self) -> State {
        self.state(self.names.durable().clone(), |_, content| {
            content.durable_bytes()
        })
    }

    /// What processes see.
    pub fn live(&self) -> State {
        self.state(self.names.live().clone(), |_, content| {
            content.bytes(&mut |moments| Some(moments.len() - 1))
        })
    }

    /// One of the states that a power cut now may leave.
    pub fn after_cut(&self, random: &mut fastrand::Rng) -> State {
        let odds = Odds::pick(random);
        let tree = self.names.after_cut(|_| odds.flip(random));
        self.state(tree, |_, content| {
            let mut picker = Picker::pick(content, random);
            content.bytes(&mut |moments| picker.choose(moments, random))
        })
    }

    fn state(
        &self,
        tree: crate::names::Tree,
        mut bytes: impl FnMut(&str, &Content) -> Vec<u8>,
    ) -> State {
        let directories = tree.directory_paths();
        let files = tree.files().into_iter().map(|(path, id)| {
            let content = self.files.get(&id).map(|content| bytes(&path, content));
            (path, content.unwrap_or_default())
        });
        State {
            files: files.collect(),
            directories,
        }
    }
}

/// How the unsynced versions of one file are decided.
enum Picker {
    /// Each for itself: whether it survived, and then which version.
    Sectors(Odds),
    /// Everything up to a moment, nothing later: what a disk that keeps the order would leave.
    UpTo(Moment),
}

impl Picker {
    fn pick(content: &Content, random: &mut fastrand::Rng) -> Picker {
        let moments: Vec<Moment> = content.moments().collect();
        match random.choice(&moments) {
            Some(moment) if random.u8(..4) == 0 => Picker::UpTo(*moment),
            _ => Picker::Sectors(Odds::pick(random)),
        }
    }

    fn choose(&mut self, moments: &[Moment], random: &mut fastrand::Rng) -> Choice {
        match self {
            Picker::UpTo(end) => moments.iter().rposition(|moment| moment <= end),
            Picker::Sectors(Odds::Everything) => Some(moments.len() - 1),
            Picker::Sectors(odds) => odds.flip(random).then(|| random.usize(..moments.len())),
        }
    }
}

#[cfg(test)]
mod tests;
