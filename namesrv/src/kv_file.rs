//! Where the key-value configuration is kept. Changes that come while one save is under way share the next: however fast
//! they come, at most one copy of the table waits for the disk.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;

use reactor::Notify;

pub struct KvFile {
    path: Option<PathBuf>,
    /// Changes made so far, and how many of them the file holds.
    changes: Cell<u64>,
    saved: Cell<u64>,
    saving: Cell<bool>,
    ended: Notify,
}

impl KvFile {
    /// Without a path nothing is kept.
    pub fn new(path: Option<PathBuf>) -> KvFile {
        KvFile {
            path,
            changes: Cell::new(0),
            saved: Cell::new(0),
            saving: Cell::new(false),
            ended: Notify::new(),
        }
    }

    /// To be called right after a change; `content` is the table as it is when the save begins. Returns once the file holds
    /// the change.
    pub async fn save(&self, content: impl Fn() -> Vec<u8>) -> io::Result<()> {
        let Some(path) = self.path.clone() else {
            return Ok(());
        };
        let change = self.changes.get() + 1;
        self.changes.set(change);
        while self.saving.get() {
            self.ended.notified().await;
            if self.saved.get() >= change {
                return Ok(());
            }
        }
        let turn = Turn::take(self);
        let covered = self.changes.get();
        let content = content();
        let saved = reactor::offload("save the key-value configuration", move || {
            if let Some(dir) = path.parent() {
                reactor::fs::create_dir_all(dir)?;
            }
            reactor::fs::replace(&path, &content)
        });
        saved.await?;
        self.saved.set(covered);
        drop(turn);
        Ok(())
    }
}

/// The one save that is under way; the next may begin when it is dropped, however it ended.
struct Turn<'a>(&'a KvFile);

impl<'a> Turn<'a> {
    fn take(file: &'a KvFile) -> Turn<'a> {
        let taken = file.saving.replace(true);
        assert!(!taken, "one save at a time");
        Turn(file)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.saving.set(false);
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn changes_that_come_together_share_a_save_and_all_are_in_the_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("kvConfig.json");
        let file = Rc::new(KvFile::new(Some(path.clone())));
        let (table, saves) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let config = reactor::CoreConfig {
            name: "kv".to_owned(),
            ..reactor::CoreConfig::default()
        };
        let (made, begun) = (table.clone(), saves.clone());
        let scene = async move {
            let tasks: Vec<_> = (0..100)
                .map(|_| {
                    let (file, made, begun) = (file.clone(), made.clone(), begun.clone());
                    reactor::spawn("change", async move {
                        made.set(made.get() + 1);
                        let content = || {
                            begun.set(begun.get() + 1);
                            made.get().to_string().into_bytes()
                        };
                        file.save(content).await
                    })
                })
                .collect();
            for task in tasks {
                let saved = task.await.expect("it is not cancelled");
                saved.expect("the folder can be written");
            }
        };
        reactor::run(config, || scene).expect("a core can be started");
        assert_eq!(saves.get(), 2, "the first change, then all the others");
        assert_eq!(std::fs::read(&path).unwrap(), b"100");
        assert_eq!(table.get(), 100);
    }
}
