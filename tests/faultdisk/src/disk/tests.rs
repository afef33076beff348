use super::content::Allocation;
use super::*;
use tempfile::TempDir;

struct Fixture {
    disk: Disk,
    backing: TempDir,
}

fn fixture() -> Fixture {
    let backing = tempfile::tempdir().expect("a temporary directory");
    let disk = Disk::open(backing.path(), None).expect("an empty directory");
    Fixture { disk, backing }
}

impl Fixture {
    fn file(&mut self, name: &str) -> Id {
        let at = Place::new(ROOT, name);
        self.disk.create(at, Kind::File).expect("a new name").id
    }

    fn write(&mut self, id: Id, offset: u64, bytes: &[u8]) {
        let written = self.disk.write(id, offset, bytes, false);
        assert_eq!(written, Ok(bytes.len()));
    }

    fn content(&mut self, name: &str) -> Option<Vec<u8>> {
        let id = self.disk.lookup(&Place::new(ROOT, name)).ok()?.id;
        Some(self.disk.read(id, 0, 1 << 20).expect("readable"))
    }

    fn command(&mut self, line: &str) {
        let command = crate::faults::parse(line).expect("a command");
        self.disk.command(command).expect("it can be done");
    }
}

#[test]
fn what_was_synced_survives_the_worst_cut_and_nothing_else_does() {
    let mut disk = fixture();
    let id = disk.file("log");
    disk.write(id, 0, &[1; 2000]);
    disk.disk.sync(id, SyncOf::File).expect("well");
    disk.disk.sync_directory(ROOT).expect("well");
    disk.write(id, 1000, &[2; 3000]);
    disk.file("other");
    disk.disk.worst_cut().expect("the objects can be written");
    assert_eq!(disk.content("log"), Some(vec![1; 2000]));
    assert_eq!(disk.content("other"), None);
}

#[test]
fn a_synced_file_without_a_synced_name_is_gone() {
    let mut disk = fixture();
    let id = disk.file("log");
    disk.write(id, 0, b"bytes");
    disk.disk.sync(id, SyncOf::File).expect("well");
    disk.disk.worst_cut().expect("the objects can be written");
    assert_eq!(disk.content("log"), None);
}

#[test]
fn a_durable_write_leaves_earlier_ones_in_danger() {
    let mut disk = fixture();
    let id = disk.file("log");
    disk.disk.sync_directory(ROOT).expect("well");
    disk.write(id, 0, &[1; 512]);
    disk.write(id, 512, &[2; 512]);
    disk.disk.write_is_durable(id, 512, 512).expect("well");
    disk.disk.sync(id, SyncOf::DurableHandle).expect("well");
    disk.disk.worst_cut().expect("the objects can be written");
    let expected = [[0; 512], [2; 512]].concat();
    assert_eq!(disk.content("log"), Some(expected));
}

#[test]
fn a_cut_by_seed_is_repeatable_and_makes_old_handles_stale() {
    let lost = |seed: u64| {
        let mut disk = fixture();
        let id = disk.file("log");
        disk.disk.sync_directory(ROOT).expect("well");
        disk.write(id, 0, &[1; 100 * 512]);
        disk.command(&format!("drop-unsynced {seed}"));
        assert_eq!(disk.disk.cuts(), 1);
        disk.content("log")
    };
    assert_eq!(lost(3), lost(3));
    let different: std::collections::BTreeSet<_> = (0..20).map(lost).collect();
    assert!(different.len() > 3, "seeds differ: {}", different.len());
}

#[test]
fn a_full_disk_refuses_new_blocks_and_takes_old_ones() {
    let mut disk = fixture();
    let id = disk.file("log");
    disk.write(id, 0, &[1; 8192]);
    disk.command("full 4096");
    let write = |disk: &mut Fixture, offset, len| {
        let bytes = vec![2; len];
        disk.disk.write(id, offset, &bytes, false)
    };
    assert_eq!(write(&mut disk, 4096, 4096), Ok(4096));
    assert_eq!(write(&mut disk, 8192, 5000), Err(libc::ENOSPC));
    assert_eq!(write(&mut disk, 8192, 4096), Ok(4096));
    assert_eq!(write(&mut disk, 12288, 1), Err(libc::ENOSPC));
    assert_eq!(disk.disk.space().map(|space| space.free_bytes), Ok(0));
    disk.disk.set_len(id, 4096).expect("well");
    assert_eq!(write(&mut disk, 12288, 1), Ok(1));
    disk.disk.unlink(Place::new(ROOT, "log")).expect("well");
    assert_eq!(
        disk.disk.space().map(|space| space.free_bytes),
        Ok(3 * 4096)
    );
}

#[test]
fn allocation_takes_space_and_a_length_and_holes_give_it_back() {
    let mut disk = fixture();
    let id = disk.file("log");
    let whole = Allocation {
        offset: 0,
        len: 16384,
        zero: false,
        punch: false,
        keep_len: false,
    };
    disk.disk.allocate(id, whole).expect("there is room");
    let attributes = disk.disk.attributes(id).expect("it is there");
    assert_eq!((attributes.len, attributes.allocated_bytes), (16384, 16384));
    disk.write(id, 0, &[3; 16384]);
    let hole = Allocation {
        offset: 4096,
        len: 8192,
        punch: true,
        keep_len: true,
        ..whole
    };
    disk.disk.allocate(id, hole).expect("well");
    let attributes = disk.disk.attributes(id).expect("it is there");
    assert_eq!((attributes.len, attributes.allocated_bytes), (16384, 8192));
    let content = disk.content("log").expect("it is there");
    assert_eq!(content[4095..4097], [3, 0]);
}

#[test]
fn a_losing_sync_throws_bytes_away_and_says_so() {
    let mut disk = fixture();
    let id = disk.file("log");
    disk.write(id, 0, &[1; 512]);
    disk.disk.sync(id, SyncOf::File).expect("well");
    disk.write(id, 0, &[2; 512]);
    disk.command("lose EIO * 1");
    assert_eq!(disk.disk.sync(id, SyncOf::File), Err(libc::EIO));
    assert_eq!(disk.content("log"), Some(vec![1; 512]));
    assert_eq!(disk.disk.sync(id, SyncOf::File), Ok(()));
}

#[test]
fn faults_strike_reads_and_writes() {
    let mut disk = fixture();
    let id = disk.file("log");
    disk.write(id, 0, &[0; 4096]);
    disk.command("flip log 7 0");
    disk.command("bad log 1024 1");
    disk.command("short-write log 1");
    assert_eq!(disk.disk.read(id, 0, 1024).map(|bytes| bytes[7]), Ok(1));
    assert_eq!(disk.disk.read(id, 1000, 1000), Err(libc::EIO));
    assert_eq!(disk.disk.write(id, 0, &[5; 100], false), Ok(50));
    assert_eq!(disk.disk.write(id, 0, &[5; 100], false), Ok(100));
    disk.command("fail any EROFS");
    assert_eq!(disk.disk.write(id, 0, &[5; 1], false), Err(libc::EROFS));
    assert_eq!(disk.disk.set_len(id, 0), Err(libc::EROFS));
    let created = disk.disk.create(Place::new(ROOT, "x"), Kind::File);
    assert_eq!(created.err(), Some(libc::EROFS));
    disk.command("clear");
    assert_eq!(
        disk.disk.read(id, 1000, 1000).map(|bytes| bytes.len()),
        Ok(1000)
    );
}

#[test]
fn a_file_that_is_open_outlives_its_name() {
    let mut disk = fixture();
    let id = disk.file("log");
    disk.write(id, 0, b"bytes");
    disk.disk.opened(id).expect("it is there");
    disk.disk.unlink(Place::new(ROOT, "log")).expect("well");
    disk.disk.sync_directory(ROOT).expect("well");
    assert_eq!(disk.disk.read(id, 0, 100), Ok(b"bytes".to_vec()));
    disk.disk.released(id);
    assert_eq!(disk.disk.read(id, 0, 100), Err(libc::ESTALE));
}

#[test]
fn between_mounts_the_backing_directory_holds_plain_files() {
    let mut disk = fixture();
    let directory = disk.disk.create(Place::new(ROOT, "d"), Kind::Directory);
    let inside = Place::new(directory.expect("a new name").id, "f");
    let id = disk.disk.create(inside, Kind::File).expect("a new name").id;
    disk.write(id, 0, b"bytes");
    disk.disk.close().expect("room on the disk");
    let path = disk.backing.path().join("d/f");
    assert_eq!(std::fs::read(&path).expect("a plain file"), b"bytes");
    let mut again = Disk::open(disk.backing.path(), None).expect("closed cleanly");
    let (id, _) = again.names().live().find("d/f").expect("taken over");
    assert_eq!(again.read(id, 0, 100), Ok(b"bytes".to_vec()));
}
