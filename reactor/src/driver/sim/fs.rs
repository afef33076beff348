//! Directories and whole files of a simulated disk, as `crate::fs` offers them. Everything happens at once.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use super::{
    Core,
    disk::{Disk, State},
};

/// Process ids of simulated processes begin here.
const PID_BASE: u32 = 1000;

/// Without `.` and doubled separators, so that one file has one name.
pub(super) fn normal(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| !matches!(part, std::path::Component::CurDir))
        .collect()
}

pub(crate) fn list(core: &Rc<Core>, directory: &Path) -> io::Result<Vec<String>> {
    core.disk.with(|state| state.list(&normal(directory)))
}

pub(crate) fn create_dir_all(core: &Rc<Core>, directory: &Path) -> io::Result<()> {
    core.disk.with(|state| state.make_dirs(&normal(directory)))
}

pub(crate) fn exists(core: &Rc<Core>, path: &Path) -> bool {
    let found = core.disk.with(|state| Ok(state.exists(&normal(path))));
    found.unwrap_or(false)
}

pub(crate) fn rename(core: &Rc<Core>, from: &Path, to: &Path) -> io::Result<()> {
    core.disk
        .with(|state| state.rename(&normal(from), &normal(to)))
}

pub(crate) fn remove_file(core: &Rc<Core>, path: &Path) -> io::Result<()> {
    core.disk.with(|state| state.remove_file(&normal(path)))
}

pub(crate) fn remove_dir_all(core: &Rc<Core>, directory: &Path) -> io::Result<()> {
    core.disk
        .with(|state| state.remove_dir_all(&normal(directory)))
}

pub(crate) fn sync_dir(core: &Rc<Core>, directory: &Path) -> io::Result<()> {
    core.disk.with(|state| state.sync_dir(&normal(directory)))
}

pub(crate) fn read(core: &Rc<Core>, path: &Path) -> io::Result<Vec<u8>> {
    core.disk.with(|state| {
        let inode = state.find(&normal(path))?;
        let mut bytes = vec![0; inode.len() as usize];
        let count = state.read(&inode, &mut bytes, 0, false)?;
        assert_eq!(count, bytes.len(), "nobody shortens the file meanwhile");
        Ok(bytes)
    })
}

pub(crate) fn replace(core: &Rc<Core>, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = normal(path);
    let temporary = with_suffix(&path, ".tmp");
    core.disk.with(|state| {
        overwrite(state, &temporary, bytes)?;
        if state.exists(&path) {
            state.rename(&path, &with_suffix(&path, ".bak"))?;
        }
        state.rename(&temporary, &path)?;
        state.sync_dir(path.parent().unwrap_or(Path::new("")))
    })
}

/// A new durable content for a file, whose name may still be lost.
fn overwrite(state: &mut State, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let inode = state.find_or_create(path)?;
    inode.set_len(0)?;
    state.write(&inode, bytes, 0)?;
    let snapshot = state.begin_sync(&inode);
    state.end_sync(&inode, snapshot)
}

pub(crate) fn free_bytes(core: &Rc<Core>, _path: &Path) -> io::Result<u64> {
    core.disk.with(|state| Ok(state.free_bytes()))
}

pub(crate) fn used_bytes(core: &Rc<Core>, _path: &Path) -> io::Result<u64> {
    core.disk.with(|state| Ok(state.used_bytes()))
}

pub(crate) fn total_bytes(core: &Rc<Core>, _path: &Path) -> io::Result<u64> {
    core.disk.with(|state| Ok(state.total_bytes()))
}

/// Another one after each power cut.
pub(crate) fn boot_id(core: &Rc<Core>) -> io::Result<[u8; 16]> {
    let boots = core.disk.with(|state| Ok(state.boots()))?;
    Ok((1 + u128::from(boots)).to_be_bytes())
}

/// Memory with a name: like a file that a power cut takes away.
pub(crate) fn keep_memory(core: &Rc<Core>, path: &Path, fd: OwnedFd) -> io::Result<()> {
    core.disk.with(|state| {
        state.keep_memory(&normal(path), fd);
        Ok(())
    })
}

/// And its size.
pub(crate) fn find_memory(core: &Rc<Core>, path: &Path) -> io::Result<Option<(OwnedFd, usize)>> {
    let found = core.disk.with(|state| state.find_memory(&normal(path)))?;
    let Some(fd) = found else {
        return Ok(None);
    };
    let file = std::fs::File::from(fd);
    let bytes = file.metadata()?.len() as usize;
    Ok(Some((file.into(), bytes)))
}

pub(crate) fn remove_memory(core: &Rc<Core>, path: &Path) -> io::Result<()> {
    core.disk.with(|state| {
        state.remove_memory(&normal(path));
        Ok(())
    })
}

pub(crate) fn lock(core: &Rc<Core>, path: &Path) -> io::Result<LockFile> {
    let path = normal(path);
    let pid = PID_BASE + core.placement.process;
    let number = core.disk.with(|state| {
        let inode = state.find_or_create(&path)?;
        let number = state.lock(&path)?;
        inode.set_len(0)?;
        state.write(&inode, pid.to_string().as_bytes(), 0)?;
        Ok(number)
    })?;
    Ok(LockFile {
        disk: core.disk.clone(),
        path,
        number,
    })
}

pub(crate) fn lock_to_look(core: &Rc<Core>, path: &Path) -> io::Result<Option<LockFile>> {
    let path = normal(path);
    let number = core.disk.with(|state| match state.is_file(&path) {
        true => state.lock(&path).map(Some),
        false => Ok(None),
    })?;
    let disk = core.disk.clone();
    Ok(number.map(|number| LockFile { disk, path, number }))
}

/// Not if nobody has it: then writes of a dead process are in the way.
pub(crate) fn lock_holder_lives(core: &Rc<Core>, path: &Path) -> bool {
    let held = core.disk.with(|state| Ok(state.is_locked(&normal(path))));
    held.unwrap_or(true)
}

/// Held until dropped, or until its process ends.
pub(crate) struct LockFile {
    disk: Arc<Disk>,
    path: PathBuf,
    number: u64,
}

impl Drop for LockFile {
    fn drop(&mut self) {
        self.disk.unlock(&self.path, self.number);
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
