//! Files and merges against plain lists.

use super::collect;
use super::entry::Entry;
use super::entry::tests::record;
use super::file::{BLOCKS_AT, Encoder, Head, KeyFile, Wanted, header_block};
use super::merge::{Merge, Needs};
use crate::queue_index::part::{BLOCK_ENTRIES, Damage};
use proptest::prelude::*;
use reactor::sim::World;
use reactor::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

fn head(entries: u64) -> Head {
    Head {
        segment_base: 1 << 20,
        segment_bytes: 1 << 20,
        from: 1 << 20,
        to: 1 << 21,
        base_ms: 1_000,
        first_ms: 1_000,
        last_ms: 50_000,
        entries,
    }
}

/// The file's bytes, written piece by piece as a merge does.
fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = Encoder::default();
    let mut blocks = Vec::new();
    for (n, entry) in entries.iter().enumerate() {
        out.push(*entry);
        if n.is_multiple_of(300) {
            blocks.extend_from_slice(&out.take());
        }
    }
    let count = out.finish();
    blocks.extend_from_slice(&out.take());
    assert_eq!(count, entries.len() as u64);
    let mut bytes = header_block(&head(count)).to_vec();
    assert_eq!(bytes.len() as u64, BLOCKS_AT);
    bytes.append(&mut blocks);
    assert_eq!(bytes.len() as u64, head(count).file_bytes());
    bytes
}

fn on_disk<Fut>(bytes: Vec<u8>, then: impl FnOnce(io::Result<KeyFile>) -> Fut + 'static)
where
    Fut: Future<Output = ()> + 'static,
{
    let mut world = World::new(1);
    let node = world.node("broker", Ipv4Addr::new(10, 0, 0, 1));
    world.block_on(node, async move {
        let path = Path::new("/x.keys");
        let options = OpenOptions {
            read: true,
            write: true,
            create: true,
            ..OpenOptions::default()
        };
        let file = File::open(path, options).expect("a new file");
        file.write_all_at_blocking(&bytes, 0).expect("room");
        then(KeyFile::open(path, 1 << 20, 1 << 20)).await;
    });
}

/// Entries of few hashes, so that some go over many blocks; times follow positions.
fn lists() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (0u64..6, 0u32..50_000).prop_map(|(hash, position)| Entry {
        hash: hash * 0x1111_1111_1111_1111,
        position,
        delta_ms: position / 10,
    });
    prop::collection::vec(entry, 0..4_000).prop_map(|mut entries| {
        entries.sort();
        entries.dedup();
        entries
    })
}

async fn find(file: &KeyFile, wanted: Wanted) -> io::Result<Vec<Entry>> {
    let head = &file.head;
    let Some(range) = wanted.within(head.base_ms, head.first_ms, head.last_ms) else {
        return Ok(Vec::new());
    };
    let mut matches = file.find(range).await?;
    let mut found = Vec::new();
    while let Some(entry) = matches.next().await? {
        found.push(entry);
    }
    Ok(found)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_file_finds_what_a_look_at_every_entry_finds(entries in lists(), begin in 0i64..7_000, length in 0i64..7_000) {
        let bytes = encode(&entries);
        on_disk(bytes, move |file| async move {
            let file = file.expect("just written");
            for hash in (0..7).map(|n| n * 0x1111_1111_1111_1111) {
                let wanted = Wanted { hash, begin_ms: begin, end_ms: begin + length };
                let in_time = |entry: &&Entry| {
                    let ms = 1_000 + i64::from(entry.delta_ms);
                    entry.hash == hash && (begin..=begin + length).contains(&ms)
                };
                let expected: Vec<Entry> = entries.iter().filter(in_time).copied().collect();
                assert_eq!(find(&file, wanted).await.expect("whole"), expected);
            }
        });
    }

    #[test]
    fn a_flipped_bit_is_noticed_or_harmless(entries in lists(), at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = encode(&entries);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        on_disk(bytes, move |file| async move {
            let Ok(file) = file else { return };
            let wanted = Wanted { hash: 0x1111_1111_1111_1111, begin_ms: 0, end_ms: i64::MAX };
            if let Ok(found) = find(&file, wanted).await {
                let expected: Vec<Entry> =
                    entries.iter().filter(|entry| entry.hash == wanted.hash).copied().collect();
                assert_eq!(found, expected);
            }
        });
    }

    #[test]
    fn merging_sorts_what_lay_in_several_runs(runs in prop::collection::vec(lists(), 1..6), step in 1usize..3, piece in 1usize..700) {
        let mut expected: Vec<Entry> = runs.iter().flatten().copied().collect();
        expected.sort();
        let mut merge = Merge::new(runs.len());
        let mut rest: Vec<&[Entry]> = runs.iter().map(Vec::as_slice).collect();
        let mut blocks = Vec::new();
        loop {
            match merge.step(step * 4096) {
                Needs::Input(number) => {
                    let (now, later) = rest[number].split_at(piece.min(rest[number].len()));
                    rest[number] = later;
                    merge.feed(number, now.to_vec());
                }
                Needs::Output => blocks.extend_from_slice(&merge.out().take()),
                Needs::Nothing => break,
            }
        }
        merge.out().finish();
        blocks.extend_from_slice(&merge.out().take());
        prop_assert_eq!(&blocks, &encode(&expected)[BLOCKS_AT as usize..]);
    }
}

#[test]
fn a_file_of_another_segment_or_cut_short_is_refused() {
    let entry = Entry {
        hash: 1,
        position: 2,
        delta_ms: 3,
    };
    let bytes = encode(&[entry; 3 * BLOCK_ENTRIES]);
    let short = bytes[..bytes.len() - 1].to_vec();
    on_disk(short, |file| async move {
        assert!(file.is_err());
    });
    on_disk(bytes, |file| async move {
        assert!(file.is_ok());
        let other = KeyFile::open(Path::new("/x.keys"), 1 << 21, 1 << 20);
        let error = other.err().expect("its segment is another");
        assert_eq!(error.to_string(), Damage::Misplaced.to_string());
    });
}

#[test]
fn what_is_no_record_is_passed_over() {
    let place = |bytes: &mut Vec<u8>, record: &[u8]| {
        let at = bytes.len();
        bytes.extend_from_slice(record);
        // What the writer adds: the log offset.
        bytes[at + 28..at + 36].copy_from_slice(&(4096 + at as u64).to_be_bytes());
    };
    let with_key = |key: &str| record("t", 0, format!("KEYS\u{1}{key}\u{2}").as_bytes());
    let mut bytes = Vec::new();
    place(&mut bytes, &with_key("a"));
    let damaged = bytes.len();
    place(&mut bytes, &with_key("b"));
    place(&mut bytes, &with_key("c"));
    let whole = collect::collect(&bytes, 4096..1 << 20, 0, collect::Times::NONE);
    assert_eq!(
        (whole.entries.len(), whole.consumed),
        (3, bytes.len() as u64)
    );
    // Its length.
    bytes[damaged] ^= 0x40;
    let rest = collect::collect(&bytes, 4096..1 << 20, 0, collect::Times::NONE);
    assert_eq!((rest.entries.len(), rest.consumed), (2, bytes.len() as u64));
    let cut = collect::collect(
        &bytes[..bytes.len() - 1],
        4096..1 << 20,
        0,
        collect::Times::NONE,
    );
    assert_eq!(cut.entries.len(), 1);
    assert!(cut.next_bytes > 0 && cut.consumed < bytes.len() as u64);
}
