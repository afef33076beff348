//! The simulated disk: what survives which failure.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{io::ErrorKind, net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use reactor::{
    Buffer, File, OpenOptions, fs,
    sim::{Faults, NodeId, World, each_seed, twice},
    sleep,
};

const MEBIBYTE: u64 = 1 << 20;
const SECTOR: usize = 512;
const NEW: OpenOptions = OpenOptions {
    read: true,
    write: true,
    create: true,
    truncate: false,
    direct: false,
    dsync: false,
};

fn one_node(faults: Faults, seed: u64) -> (World, NodeId) {
    let mut world = World::with(faults, seed);
    let node = world.node("one", Ipv4Addr::new(10, 0, 0, 1));
    (world, node)
}

fn path() -> &'static Path {
    Path::new("data/file")
}

/// A synced file of `len` bytes, all `fill`, under a durable name.
fn durable_file(fill: u8, len: usize) -> File {
    fs::create_dir_all(Path::new("data")).unwrap();
    let file = File::open(path(), NEW).unwrap();
    file.write_all_at_blocking(&vec![fill; len], 0).unwrap();
    file.sync_blocking().unwrap();
    fs::sync_dir(Path::new("data")).unwrap();
    file
}

#[test]
fn reads_see_writes_and_lengths_follow() {
    let (mut world, node) = one_node(Faults::default(), 1);
    world.block_on(node, async {
        let file = durable_file(1, 10_000);
        let mut buffer = Buffer::with_capacity(8192);
        buffer.set_len(5000);
        buffer.fill(2);
        let (written, buffer) = file.write_at(buffer, 9_000).await;
        assert_eq!(written.unwrap(), 5000);
        assert_eq!(file.len().unwrap(), 14_000);
        let (read, buffer) = file.read_at(buffer, 8_000, 8192).await;
        assert_eq!(read.unwrap(), 6_000);
        assert_eq!(buffer.len(), 6_000);
        assert!(buffer[..1000].iter().all(|byte| *byte == 1));
        assert!(buffer[1000..].iter().all(|byte| *byte == 2));
        let mut tail = [0; 4];
        let short = file.read_exact_at_blocking(&mut tail, 13_998);
        assert_eq!(short.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        file.set_len(100).unwrap();
        file.set_len(200).unwrap();
        assert_eq!(fs::read(path()).unwrap()[100..], [0; 100]);
    });
}

#[test]
fn a_mapping_is_the_file_and_survives_the_killed_process() {
    let (mut world, node) = one_node(Faults::default(), 1);
    world.start(node, "writer", || async {
        let file = durable_file(0, 3 * 4096);
        let mapping = file.map(3 * 4096).unwrap();
        // SAFETY: nobody else uses the mapping.
        unsafe { mapping.bytes_mut(5000, 5) }.copy_from_slice(b"hello");
        let mut seen = [0; 5];
        file.read_exact_at_blocking(&mut seen, 5000).unwrap();
        assert_eq!(&seen, b"hello");
        file.write_all_at_blocking(b"J", 5000).unwrap();
        // SAFETY: nobody writes now.
        assert_eq!(unsafe { mapping.bytes(5000, 5) }, b"Jello");
        sleep(Duration::from_secs(1000)).await;
    });
    world.run_for(Duration::from_secs(1));
    world.kill(node);
    let found = world.block_on(node, async { fs::read(path()) }).unwrap();
    assert_eq!(&found[5000..5005], b"Jello");
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_tears_the_rest_by_sectors() {
    const LEN: usize = 64 * 1024;
    let mut seen = [false; 3];
    for seed in 0..60 {
        let (mut world, node) = one_node(Faults::default(), seed);
        world.block_on(node, async {
            let file = durable_file(1, LEN);
            let mapping = file.map(LEN).unwrap();
            // SAFETY: nobody else uses the mapping.
            unsafe { mapping.bytes_mut(LEN / 2, LEN / 2) }.fill(2);
        });
        world.power_cut(node);
        let found = world.block_on(node, async { fs::read(path()) }).unwrap();
        assert_eq!(found.len(), LEN);
        assert!(
            found[..LEN / 2].iter().all(|byte| *byte == 1),
            "seed {seed}"
        );
        let mut new = 0;
        for sector in found[LEN / 2..].chunks(SECTOR) {
            assert!(
                sector.iter().all(|byte| *byte == sector[0]),
                "seed {seed}: a sector is whole"
            );
            assert!([1, 2].contains(&sector[0]));
            new += usize::from(sector[0] == 2);
        }
        let sectors = LEN / 2 / SECTOR;
        seen[if new == 0 {
            0
        } else if new == sectors {
            1
        } else {
            2
        }] = true;
    }
    assert_eq!(
        seen, [true; 3],
        "nothing, everything and a mixture survived"
    );
}

#[test]
fn what_is_written_while_a_sync_runs_is_not_durable_by_it() {
    let mut lost = false;
    for seed in 0..20 {
        let (mut world, node) = one_node(Faults::default(), seed);
        world.block_on(node, async {
            let file = Arc::new(durable_file(1, 4096));
            file.write_all_at_blocking(&[2; SECTOR], 0).unwrap();
            let syncing = file.clone();
            let sync = reactor::spawn("sync", async move { syncing.sync_data().await });
            reactor::yield_now().await;
            file.write_all_at_blocking(&[3; SECTOR], SECTOR as u64)
                .unwrap();
            sync.await.unwrap().unwrap();
        });
        world.power_cut(node);
        let found = world.block_on(node, async { fs::read(path()) }).unwrap();
        assert_eq!(found[0], 2, "seed {seed}: written before the sync began");
        lost |= found[SECTOR] == 1;
    }
    assert!(lost);
}

#[test]
fn a_dsync_write_is_durable_when_it_returns_and_nothing_else_is() {
    let mut lost = false;
    for seed in 0..20 {
        let (mut world, node) = one_node(Faults::default(), seed);
        world.block_on(node, async {
            let plain = durable_file(1, 16384);
            plain.write_all_at_blocking(&[2; 4096], 8192).unwrap();
            let durable = OpenOptions {
                direct: true,
                dsync: true,
                ..NEW
            };
            let file = File::open(path(), durable).unwrap();
            let mut buffer = Buffer::with_capacity(4096);
            buffer.set_len(4096);
            buffer.fill(3);
            let (written, buffer) = file.write_at(buffer, 4096).await;
            assert_eq!(written.unwrap(), 4096);
            let (misaligned, _) = file.write_at(buffer, 100).await;
            assert_eq!(misaligned.unwrap_err().raw_os_error(), Some(22));
        });
        world.power_cut(node);
        let found = world.block_on(node, async { fs::read(path()) }).unwrap();
        assert!(
            found[4096..8192].iter().all(|byte| *byte == 3),
            "seed {seed}"
        );
        lost |= found[8192] == 1;
    }
    assert!(lost);
}

#[test]
fn a_name_is_durable_once_its_directory_was_synced() {
    let (mut with_new_name, mut with_old_name) = (false, false);
    each_seed_of(40, |world, node| {
        world.block_on(node, async {
            drop(durable_file(1, 10));
            fs::rename(path(), Path::new("data/renamed")).unwrap();
            assert!(!fs::exists(path()));
        });
        world.power_cut(node);
        let names = world
            .block_on(node, async { fs::list(Path::new("data")) })
            .unwrap();
        with_new_name |= names == ["renamed"];
        with_old_name |= names == ["file"];
        assert_eq!(names.len(), 1);
    });
    assert!(with_new_name && with_old_name);
    each_seed_of(40, |world, node| {
        world.block_on(node, async {
            drop(durable_file(1, 10));
            fs::rename(path(), Path::new("data/renamed")).unwrap();
            fs::sync_dir(Path::new("data")).unwrap();
        });
        world.power_cut(node);
        let names = world
            .block_on(node, async { fs::list(Path::new("data")) })
            .unwrap();
        assert_eq!(names, ["renamed"]);
    });
}

fn each_seed_of(count: u64, mut scene: impl FnMut(&mut World, NodeId)) {
    for seed in 0..count {
        let (mut world, node) = one_node(Faults::default(), seed);
        scene(&mut world, node);
    }
}

#[test]
fn a_replaced_file_is_old_or_new_whenever_the_power_goes() {
    each_seed(40, |seed| {
        let (mut world, node) = one_node(Faults::default(), seed);
        world.block_on(node, async {
            fs::create_dir_all(Path::new("data")).unwrap();
            fs::replace(path(), b"one").unwrap();
            fs::replace(path(), b"two").unwrap();
        });
        world.power_cut(node);
        world.block_on(node, async {
            assert_eq!(fs::read(path()).unwrap(), b"two");
            assert_eq!(fs::read(Path::new("data/file.bak")).unwrap(), b"one");
            assert!(!fs::exists(Path::new("data/file.tmp")));
        });
    });
}

#[test]
fn directories_move_and_vanish_with_what_is_in_them() {
    let (mut world, node) = one_node(Faults::default(), 1);
    world.block_on(node, async {
        drop(durable_file(1, 10));
        fs::create_dir_all(Path::new("data/./inner/")).unwrap();
        fs::rename(Path::new("data"), Path::new("moved")).unwrap();
        assert_eq!(fs::list(Path::new("moved")).unwrap(), ["file"]);
        assert!(fs::exists(Path::new("moved/inner")) && !fs::exists(path()));
        let missing = File::open(path(), NEW).err().unwrap();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        fs::remove_dir_all(Path::new("moved")).unwrap();
        assert!(!fs::exists(Path::new("moved/file")));
        assert!(fs::list(Path::new("moved")).is_err());
    });
}

#[test]
fn a_lock_is_held_by_one_process_and_freed_by_its_death() {
    let (mut world, node) = one_node(Faults::default(), 1);
    let locked = Path::new("lock");
    world.start(node, "holder", move || async move {
        let _held = fs::lock(locked).unwrap();
        sleep(Duration::from_secs(1000)).await;
    });
    world.run_for(Duration::from_secs(1));
    let refused = world.block_on(node, async move { fs::lock(locked).err() });
    assert_eq!(refused.unwrap().kind(), ErrorKind::WouldBlock);
    world.kill(node);
    assert!(world.block_on(node, async move { fs::lock(locked).is_ok() }));
}

#[test]
fn a_full_disk_refuses_to_grow_and_keeps_what_it_has() {
    let faults = Faults {
        full_at_bytes: Some(MEBIBYTE),
        ..Faults::default()
    };
    let (mut world, node) = one_node(faults, 1);
    world.block_on(node, async {
        let file = durable_file(1, 4096);
        let full = file.allocate(2 * MEBIBYTE).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert_eq!(file.len().unwrap(), 4096);
        file.allocate(MEBIBYTE).unwrap();
        assert_eq!(fs::free_bytes(path()).unwrap(), 0);
        assert_eq!(fs::total_bytes(path()).unwrap(), MEBIBYTE);
        let other = File::open(Path::new("data/other"), NEW).unwrap();
        let full = other.write_all_at_blocking(&[1], 0).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        file.write_all_at_blocking(&[2; 100], 0).unwrap();
        fs::remove_file(path()).unwrap();
        other.write_all_at_blocking(&[1], 0).unwrap();
    });
}

#[test]
fn after_a_failed_sync_a_second_one_lies() {
    let mut lost = false;
    for seed in 0..20 {
        let (mut world, node) = one_node(Faults::default(), seed);
        let file = world.block_on(node, async { Arc::new(durable_file(1, 65536)) });
        let failing = Faults {
            fsync_error_ppm: 1_000_000,
            ..Faults::default()
        };
        world.set_faults(failing);
        let written = file.clone();
        let failed = world.block_on(node, async move {
            written.write_all_at_blocking(&[2; 65536], 0).unwrap();
            written.sync_data().await
        });
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(5));
        world.set_faults(Faults::default());
        world
            .block_on(node, async move { file.sync_data().await })
            .unwrap();
        world.power_cut(node);
        let found = world.block_on(node, async { fs::read(path()) }).unwrap();
        lost |= found.contains(&1);
    }
    assert!(
        lost,
        "the page cache forgot what the failed sync did not write"
    );
}

#[test]
fn large_sparse_files_cost_little() {
    const SEGMENT: u64 = 64 * MEBIBYTE;
    let began = std::time::Instant::now();
    for seed in 0..20 {
        let (mut world, node) = one_node(Faults::default(), seed);
        world.block_on(node, async {
            let file = durable_file(0, 1);
            file.allocate(SEGMENT).unwrap();
            let mapping = file.map(SEGMENT as usize).unwrap();
            for round in 0..50 {
                // SAFETY: nobody else uses the mapping.
                unsafe { mapping.bytes_mut(round * 1000, 1000) }.fill(7);
                file.sync_data().await.unwrap();
            }
        });
        world.power_cut(node);
        let found = world.block_on(node, async {
            let file = File::open(path(), NEW).unwrap();
            let mut found = vec![0; 50_001];
            file.read_exact_at_blocking(&mut found, 0).unwrap();
            (file.len().unwrap(), found)
        });
        assert_eq!(found.0, SEGMENT);
        assert!(found.1[..50_000].iter().all(|byte| *byte == 7) && found.1[50_000] == 0);
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn after_a_power_cut_pages_are_cold_until_read() {
    let (mut world, node) = one_node(Faults::default(), 1);
    world.block_on(node, async {
        let file = durable_file(1, 16384);
        let mapping = file.map(16384).unwrap();
        assert!(mapping.resident(0, 16384));
        mapping.dont_need(4096, 4096).unwrap();
        assert!(!mapping.resident(0, 16384) && mapping.resident(8192, 8192));
    });
    world.power_cut(node);
    world.block_on(node, async {
        let file = File::open(path(), NEW).unwrap();
        let mapping = file.map(16384).unwrap();
        assert!(!mapping.resident(0, 1));
        let (read, _) = file.read_at(Buffer::with_capacity(4096), 0, 4096).await;
        assert_eq!(read.unwrap(), 4096);
        assert!(mapping.resident(0, 4096) && !mapping.resident(4096, 1));
        mapping.populate(4096, 4096).unwrap();
        assert!(mapping.resident(0, 8192));
    });
}

#[test]
fn the_same_seed_loses_the_same_sectors() {
    each_seed(30, |seed| {
        let faults = Faults {
            fsync_error_ppm: 100_000,
            write_error_ppm: 50_000,
            read_error_ppm: 50_000,
            ..Faults::default()
        };
        twice(seed, |seed| {
            let (mut world, node) = one_node(faults, seed);
            for round in 0..5u8 {
                world.start(node, "writer", move || async move {
                    let _ = fs::create_dir_all(Path::new("data"));
                    let Ok(file) = File::open(path(), NEW) else {
                        return;
                    };
                    for block in 0..20 {
                        let mut buffer = Buffer::with_capacity(4096);
                        buffer.set_len(3000);
                        buffer.fill(round);
                        let _ = file.write_at(buffer, block * 1500).await;
                        let _ = file.sync_data().await;
                    }
                });
                let patience = world.random() % 20_000;
                world.run_for(Duration::from_micros(patience));
                world.power_cut(node);
            }
            let found = world.block_on(node, async { fs::read(path()).unwrap_or_default() });
            let sum = found
                .iter()
                .fold(0u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
            world.trace_hash() ^ sum
        });
    });
}

#[test]
fn a_flipped_bit_is_one_bit_of_one_read_and_is_counted() {
    let (mut world, node) = one_node(Faults::default(), 7);
    world.set_faults(Faults {
        bit_flip_ppm: 1_000_000,
        ..Faults::default()
    });
    let wrong = world.block_on(node, async {
        let file = create("/flipped");
        file.write_all_at_blocking(&[0; 64], 0).unwrap();
        let mut read = [0; 64];
        file.read_exact_at_blocking(&mut read, 0).unwrap();
        read.iter().map(|byte| byte.count_ones()).sum::<u32>()
    });
    assert_eq!(wrong, 1);
    assert_eq!(world.met(node).bits_flipped, 1);
    world.set_faults(Faults::default());
    let read = world.block_on(node, async { fs::read(Path::new("/flipped")).unwrap() });
    assert_eq!(read, [0; 64], "the disk itself is well");
}

#[test]
fn a_bad_page_stays_bad_and_the_others_are_read() {
    let (mut world, node) = one_node(Faults::default(), 8);
    world.set_faults(Faults {
        bad_page_ppm: 300_000,
        ..Faults::default()
    });
    world.block_on(node, async {
        let file = create("/spots");
        file.write_all_at_blocking(&[5; 64 * 4096], 0).unwrap();
        let mut page = [0; 4096];
        let mut look = || -> Vec<bool> {
            let pages = (0..64).map(|page| page * 4096);
            pages
                .map(|at| file.read_exact_at_blocking(&mut page, at).is_ok())
                .collect()
        };
        let first = look();
        let good = first.iter().filter(|is_good| **is_good).count();
        assert!((1..64).contains(&good), "{good} of 64 are good");
        assert_eq!(look(), first);
    });
    assert!(world.met(node).bad_pages > 0);
}

#[test]
fn past_the_page_cache_a_failed_sync_is_seen_to_have_failed() {
    let (mut world, node) = one_node(Faults::default(), 9);
    let failing = Faults {
        fsync_error_ppm: 1_000_000,
        ..Faults::default()
    };
    world.block_on(node, async {
        let file = create("/lies");
        file.write_all_at_blocking(&[1; 8 * 4096], 0).unwrap();
        file.sync_blocking().unwrap();
    });
    world.set_faults(failing);
    world.block_on(node, async {
        let file = create("/lies");
        file.write_all_at_blocking(&[2; 8 * 4096], 0).unwrap();
        assert!(file.sync_blocking().is_err());
        let cached = fs::read(Path::new("/lies")).unwrap();
        assert_eq!(cached, [2; 8 * 4096]);
        let direct = OpenOptions {
            read: true,
            direct: true,
            ..OpenOptions::default()
        };
        let file = File::open(Path::new("/lies"), direct).unwrap();
        let mut on_disk = [0; 8 * 4096];
        file.read_exact_at_blocking(&mut on_disk, 0).unwrap();
        assert!(on_disk.contains(&1), "some sectors did not get there");
    });
    assert_eq!(world.met(node).sync_errors, 1);
}

#[test]
fn a_slow_disk_takes_its_time_and_is_counted() {
    let (mut world, node) = one_node(Faults::default(), 10);
    world.set_faults(Faults {
        slow_ppm: 1_000_000,
        slow_delay: (Duration::from_secs(3), Duration::from_secs(3)),
        ..Faults::default()
    });
    let before = world.now();
    world.block_on(node, async {
        create("/slow").sync_data().await.unwrap();
    });
    assert!(world.now().saturating_since(before) >= Duration::from_secs(3));
    assert_eq!(world.met(node).slow, 1);
}

fn create(path: &str) -> File {
    File::open(Path::new(path), NEW).unwrap()
}
