//! The mounted disk through real system calls: what the kernel makes of them is what brokers will meet. Without FUSE
//! each test says so and passes.

mod support;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use support::{Aligned, Mount, Shared, direct_writes_in_flight};

#[test]
fn a_mapping_is_durable_once_synced() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let file = mount.create("log");
    file.set_len(1 << 20).expect("room");
    let mapping = Shared::of(&file, 1 << 20);
    mount.sync_root();
    mapping.fill(0..5000, 1);
    file.sync_data().expect("well");
    mapping.fill(0..5000, 2);
    // Not even written back: a cut cannot keep what never reached the disk.
    mount.ask("drop-unsynced 1");
    drop(mapping);
    let content = mount.read("log").expect("its name was synced");
    assert_eq!(content[..5000], [1; 5000]);
    assert_eq!(content.len(), 1 << 20);
}

#[test]
fn what_was_opened_before_a_cut_is_stale_and_new_names_can_vanish() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let file = mount.create("log");
    file.write_all_at(&[1; 100], 0).expect("well");
    file.sync_all().expect("well");
    // A cut with this seed keeps no name.
    let seed = (0..50).find(|seed| {
        mount
            .ask(&format!("drop-unsynced {seed}"))
            .contains("and 1 of 1 names")
    });
    assert!(seed.is_some(), "some seed loses the only name");
    let stale = file
        .read_at(&mut [0; 10], 0)
        .expect_err("the power was cut");
    assert_eq!(stale.raw_os_error(), Some(libc::ESTALE));
    assert!(mount.read("log").is_none());
}

#[test]
fn a_write_with_o_dsync_is_durable_and_makes_no_other_durable() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let plain = mount.create("log");
    mount.sync_root();
    for flags in [libc::O_DSYNC, libc::O_DSYNC | libc::O_DIRECT] {
        plain.write_all_at(&[7; 4096], 0).expect("well");
        let durable = mount.open("log", flags);
        durable
            .write_all_at(Aligned::page(9).bytes(), 8192)
            .expect("well");
        let unsynced = mount.count("unsynced_sectors");
        assert_eq!(
            unsynced, 8,
            "the plain write is still in danger, {flags:#x}"
        );
        plain.sync_data().expect("well");
        assert_eq!(mount.count("unsynced_sectors"), 0);
    }
}

#[test]
fn direct_writes_through_the_ring_are_in_flight_together_and_durable_each() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let plain = mount.create("log");
    plain.set_len(1 << 20).expect("room");
    plain.sync_all().expect("well");
    mount.sync_root();
    // Durable by the handle, and by each write.
    for (flags, write_flags) in [(libc::O_DSYNC, 0), (0, libc::RWF_DSYNC)] {
        let before = mount.count("durable_writes");
        plain.write_all_at(&[7; 512], 512 << 10).expect("well");
        mount.ask("slow 50000 write");
        let file = mount.open("log", flags | libc::O_DIRECT);
        let started = std::time::Instant::now();
        direct_writes_in_flight(&file, 4, write_flags);
        let took_ms = started.elapsed().as_millis();
        assert!(took_ms < 150, "four at 50 ms each, together: {took_ms}");
        mount.ask("clear");
        assert_eq!(mount.count("durable_writes"), before + 4);
        let unsynced = mount.count("unsynced_sectors");
        assert_eq!(unsynced, 1, "the plain write is still in danger");
    }
}

#[test]
fn errors_reach_who_writes_syncs_and_reads() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    let file = mount.create("log");
    file.write_all_at(&[1; 8192], 0).expect("well");
    let errno = |result: io::Result<()>| result.err().and_then(|error| error.raw_os_error());
    mount.ask("fail fsync EIO log 1");
    assert_eq!(errno(file.sync_data()), Some(libc::EIO));
    assert_eq!(errno(file.sync_data()), None);
    mount.ask("fail fsync EIO log 1");
    let durable = mount.open("log", libc::O_DSYNC);
    assert_eq!(errno(durable.write_all_at(&[1], 0)), Some(libc::EIO));
    mount.ask("fail write ENOSPC log");
    let mapping = Shared::of(&file, 8192);
    mapping.fill(0..1, 3);
    // The page is written back by the sync, and that fails.
    assert_eq!(errno(file.sync_data()), Some(libc::ENOSPC));
    assert_eq!(errno(file.write_all_at(&[1], 0)), Some(libc::ENOSPC));
    mount.ask("clear");
    mount.ask("bad log 4096 512");
    let mut page = [0; 4096];
    assert_eq!(errno(file.read_exact_at(&mut page, 4096)), Some(libc::EIO));
    assert_eq!(errno(file.read_exact_at(&mut page, 0)), None);
    mount.ask("clear");
    mount.ask("flip log 4097 3");
    file.read_exact_at(&mut page, 4096).expect("readable again");
    assert_eq!(page[..3], [1, 1 ^ 8, 1]);
    mount.ask("clear");
    file.read_exact_at(&mut page, 4096).expect("well");
    assert_eq!(page[..3], [1, 1, 1], "nobody remembers the damage");
}

#[test]
fn a_full_disk_shows_in_its_free_bytes_and_refuses_allocation() {
    let Some(mut mount) = Mount::new() else {
        return;
    };
    mount.ask("full 1048576");
    let file = mount.create("log");
    assert_eq!(support::allocate(&file, 0, 512 << 10), Ok(()));
    assert_eq!(mount.free_bytes(), 512 << 10);
    assert_eq!(support::allocate(&file, 0, 2 << 20), Err(libc::ENOSPC));
    file.set_len(0).expect("well");
    assert_eq!(mount.free_bytes(), 1 << 20);
}

#[test]
fn locks_renames_and_open_files_without_a_name_work() {
    let Some(mount) = Mount::new() else { return };
    let file = mount.create("a");
    file.write_all_at(b"bytes", 0).expect("well");
    file.try_lock().expect("nobody holds it");
    let again = File::open(mount.path("a")).expect("it is there");
    assert!(again.try_lock().is_err());
    std::fs::rename(mount.path("a"), mount.path("b")).expect("well");
    assert_eq!(mount.read("b").as_deref(), Some(&b"bytes"[..]));
    std::fs::remove_file(mount.path("b")).expect("well");
    let mut bytes = [0; 5];
    file.read_exact_at(&mut bytes, 0).expect("still open");
    assert_eq!(&bytes, b"bytes");
    let exclusive = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_DIRECT)
        .open(mount.path("b"));
    assert!(exclusive.is_ok());
}

#[test]
fn a_clean_unmount_leaves_plain_files_behind() {
    let Some(mount) = Mount::new() else { return };
    std::fs::create_dir_all(mount.path("d/e")).expect("well");
    std::fs::write(mount.path("d/e/f"), b"bytes").expect("well");
    let backing = mount.unmount();
    let left = std::fs::read(backing.path().join("d/e/f"));
    assert_eq!(left.expect("a plain file"), b"bytes");
}
