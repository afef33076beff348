use super::*;
use crate::disk::{Allocation, Disk, SyncOf};
use crate::names::{Place, ROOT};
use crate::trace::{self, Recorder};
use proptest::prelude::*;

const NAMES: usize = 3;
const BYTES_MAX: u64 = 6000;

#[derive(Clone, Debug)]
enum Step {
    Create(usize),
    Write(usize, u64, Vec<u8>),
    DurableWrite(usize, u64, Vec<u8>),
    SetLen(usize, u64),
    Allocate(usize, u64, u64, u8),
    Sync(usize),
    SyncNames,
    Rename(usize, usize),
    Unlink(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0..NAMES;
    let bytes = || (any::<u8>(), 1usize..2000).prop_map(|(byte, len)| vec![byte; len]);
    let step = prop_oneof![
        3 => name.clone().prop_map(Step::Create),
        6 => (name.clone(), 0..BYTES_MAX, bytes()).prop_map(|(n, at, b)| Step::Write(n, at, b)),
        3 => (name.clone(), 0..BYTES_MAX, bytes()).prop_map(|(n, at, b)| Step::DurableWrite(n, at, b)),
        2 => (name.clone(), 0..BYTES_MAX).prop_map(|(n, len)| Step::SetLen(n, len)),
        2 => (name.clone(), 0..BYTES_MAX, 1..BYTES_MAX, any::<u8>())
            .prop_map(|(n, at, len, mode)| Step::Allocate(n, at, len, mode)),
        2 => name.clone().prop_map(Step::Sync),
        1 => Just(Step::SyncNames),
        1 => (name.clone(), name.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => name.prop_map(Step::Unlink),
    ];
    proptest::collection::vec(step, 0..60)
}

fn at(name: usize) -> Place {
    Place::new(ROOT, format!("f{name}"))
}

fn play(disk: &mut Disk, step: Step) {
    let found = |disk: &Disk, name| disk.lookup(&at(name)).ok().map(|file| file.id);
    let done = match step {
        Step::Create(name) => disk.create(at(name), Kind::File).map(drop),
        Step::Write(name, offset, bytes) => match found(disk, name) {
            Some(id) => disk.write(id, offset, &bytes, false).map(drop),
            None => Ok(()),
        },
        Step::DurableWrite(name, offset, bytes) => match found(disk, name) {
            Some(id) => disk
                .write(id, offset, &bytes, false)
                .and_then(|len| disk.write_is_durable(id, offset, len as u64)),
            None => Ok(()),
        },
        Step::SetLen(name, len) => match found(disk, name) {
            Some(id) => disk.set_len(id, len),
            None => Ok(()),
        },
        Step::Allocate(name, offset, len, mode) => match found(disk, name) {
            Some(id) => {
                let punch = mode & 1 != 0;
                let wanted = Allocation {
                    offset,
                    len,
                    zero: mode & 2 != 0 && !punch,
                    punch,
                    keep_len: punch || mode & 4 != 0,
                };
                disk.allocate(id, wanted)
            }
            None => Ok(()),
        },
        Step::Sync(name) => match found(disk, name) {
            Some(id) => disk.sync(id, SyncOf::File),
            None => Ok(()),
        },
        Step::SyncNames => disk.sync_directory(ROOT),
        Step::Rename(from, to) => disk.rename(at(from), at(to), true),
        Step::Unlink(name) => disk.unlink(at(name)),
    };
    assert!(
        matches!(done, Ok(()) | Err(libc::ENOENT | libc::EEXIST)),
        "{done:?}"
    );
}

fn content_of(disk: &mut Disk) -> BTreeMap<String, Vec<u8>> {
    let files = disk.names().live().files();
    let read = |(path, id)| (path, disk.read(id, 0, 1 << 20).expect("readable"));
    files.into_iter().map(read).collect()
}

/// The disk after the steps, and the image that its trace makes.
fn both(steps: Vec<Step>) -> (Disk, Image, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let backing = directory.path().join("backing");
    std::fs::create_dir(&backing).expect("room");
    let path = directory.path().join("trace");
    let recorder = Recorder::create(&path).expect("room");
    let mut disk = Disk::open(&backing, Some(recorder)).expect("an empty directory");
    for step in steps {
        play(&mut disk, step);
    }
    disk.flush_trace().expect("room");
    let mut image = Image::default();
    for event in trace::read(&path).expect("just written") {
        image.apply(&event);
    }
    (disk, image, directory)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn with_every_sector_new_a_replay_equals_what_was_seen(steps in steps()) {
        let (mut disk, image, _directory) = both(steps);
        prop_assert_eq!(image.live().files, content_of(&mut disk));
    }

    #[test]
    fn with_every_sector_old_a_replay_equals_what_a_cut_disk_holds(steps in steps()) {
        let (mut disk, image, _directory) = both(steps);
        // A seed that lets nothing unsynced survive, if there is one soon.
        let durable = image.durable().files;
        disk.worst_cut().expect("the objects can be written");
        prop_assert_eq!(content_of(&mut disk), durable);
    }

    #[test]
    fn what_was_synced_is_in_every_state(steps in steps(), seed in any::<u64>()) {
        let (_disk, image, _directory) = both(steps.into_iter().chain([
            Step::Create(0), Step::SyncNames, Step::SetLen(0, 0), Step::Write(0, 0, vec![7; 1500]), Step::Sync(0),
            Step::Write(0, 1500, vec![8; 1500]),
        ]).collect());
        let state = image.after_cut(&mut fastrand::Rng::with_seed(seed));
        // The sector in which the two writes meet was written again, but with the same bytes.
        prop_assert_eq!(&state.files["f0"][..1500], &[7; 1500][..]);
    }
}
