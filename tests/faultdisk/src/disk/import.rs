//! Into use and out of it: between mounts the backing directory holds plain files under their own names.

use std::fs;
use std::io;
use std::path::Path;

use super::{Content, Disk, OBJECTS};
use crate::names::{Change, Id, Kind, Names, Place, ROOT};

impl Disk {
    /// Takes over what lies in the backing directory; all of it is durable.
    pub(super) fn import(&mut self) -> io::Result<()> {
        let objects = self.backing.join(OBJECTS);
        if objects.exists() {
            return Err(io::Error::other(format!(
                "{} is in use, or was left by a disk that was killed",
                objects.display()
            )));
        }
        fs::create_dir_all(&objects)?;
        let backing = self.backing.clone();
        self.import_directory(&backing, ROOT)?;
        self.names = Names::restart(self.names.live().clone());
        Ok(())
    }

    fn import_directory(&mut self, directory: &Path, id: Id) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == OBJECTS {
                continue;
            }
            let child = Id(self.next_id);
            self.next_id += 1;
            let at = Place::new(id, name);
            if entry.file_type()?.is_dir() {
                let kind = Kind::Directory;
                self.names.apply(Change::Link {
                    at,
                    id: child,
                    kind,
                });
                self.import_directory(&entry.path(), child)?;
                fs::remove_dir(entry.path())?;
                continue;
            }
            let object = self.object(child);
            fs::rename(entry.path(), &object)?;
            let file = fs::File::options().read(true).write(true).open(&object)?;
            let len = file.metadata()?.len();
            let content = Content::over(file, len);
            self.used_bytes += content.blocks.bytes();
            self.files.insert(child, content);
            let kind = Kind::File;
            self.names.apply(Change::Link {
                at,
                id: child,
                kind,
            });
        }
        Ok(())
    }

    /// The disk goes out of use in peace: everything is written, and found in the backing directory under its name.
    pub fn close(&mut self) -> io::Result<()> {
        self.flush_trace()?;
        for path in self.names.live().directory_paths() {
            fs::create_dir_all(self.backing.join(path))?;
        }
        for (path, id) in self.names.live().files() {
            fs::rename(self.object(id), self.backing.join(path))?;
        }
        fs::remove_dir_all(self.backing.join(OBJECTS))
    }
}
