use super::*;
use proptest::prelude::*;

fn link(directory: Id, name: &str, id: u64) -> Change {
    Change::Link {
        at: Place::new(directory, name),
        id: Id(id),
        kind: Kind::File,
    }
}

fn mkdir(directory: Id, name: &str, id: u64) -> Change {
    Change::Link {
        at: Place::new(directory, name),
        id: Id(id),
        kind: Kind::Directory,
    }
}

fn rename(from: Id, name: &str, to: Id, new: &str) -> Change {
    Change::Rename {
        from: Place::new(from, name),
        to: Place::new(to, new),
    }
}

#[test]
fn a_name_survives_a_cut_only_once_its_directory_was_synced() {
    let mut names = Names::default();
    names.apply(link(ROOT, "a", 2));
    assert_eq!(names.after_cut(|_| false).find("a"), None);
    names.sync(ROOT);
    names.apply(link(ROOT, "b", 3));
    let left = names.after_cut(|_| false);
    assert_eq!(left.find("a"), Some((Id(2), Kind::File)));
    assert_eq!(left.find("b"), None);
    assert_eq!(names.after_cut(|_| true), *names.live());
}

#[test]
fn a_directory_loses_everything_after_its_first_lost_operation() {
    let mut names = Names::default();
    for (name, id) in [("a", 2), ("b", 3), ("c", 4)] {
        names.apply(link(ROOT, name, id));
    }
    let mut asked = 0;
    let left = names.after_cut(|_| {
        asked += 1;
        asked != 2
    });
    let files: Vec<String> = left.files().into_iter().map(|(path, _)| path).collect();
    assert_eq!(files, ["a"]);
    assert_eq!(asked, 2, "nothing behind the lost one is asked for");
}

#[test]
fn a_rename_between_directories_is_made_durable_by_syncing_either() {
    let mut names = Names::default();
    names.apply(mkdir(ROOT, "from", 2));
    names.apply(mkdir(ROOT, "to", 3));
    names.sync(ROOT);
    names.apply(link(Id(2), "spare", 4));
    names.apply(link(Id(2), "other", 5));
    names.apply(rename(Id(2), "spare", Id(3), "log"));
    names.apply(link(Id(2), "later", 6));
    names.sync(Id(3));
    let left = names.after_cut(|_| false);
    assert_eq!(left.find("to/log"), Some((Id(4), Kind::File)));
    assert_eq!(left.find("from/spare"), None);
    // What came before the rename in its directory is built upon, what came after is not.
    assert!(left.find("from/other").is_some());
    assert!(left.find("from/later").is_none());
}

#[test]
fn what_lies_in_a_lost_directory_is_lost_with_it() {
    let mut names = Names::default();
    names.apply(mkdir(ROOT, "d", 2));
    names.apply(link(Id(2), "f", 3));
    names.sync(Id(2));
    assert!(names.after_cut(|_| false).files().is_empty());
    names.sync(ROOT);
    assert!(names.after_cut(|_| false).find("d/f").is_some());
}

#[test]
fn a_replaced_file_comes_back_when_the_rename_is_lost() {
    let mut names = Names::default();
    names.apply(link(ROOT, "table", 2));
    names.sync(ROOT);
    names.apply(link(ROOT, "table.tmp", 3));
    names.apply(rename(ROOT, "table.tmp", ROOT, "table"));
    assert_eq!(names.live().find("table"), Some((Id(3), Kind::File)));
    assert_eq!(
        names.after_cut(|_| false).find("table"),
        Some((Id(2), Kind::File))
    );
    assert!(names.known().contains(&Id(2)));
    names.sync(ROOT);
    assert!(!names.known().contains(&Id(2)));
}

/// Numbers that become operations which are possible in the live tree.
fn step(names: &mut Names, next_id: &mut u64, pick: (u8, u8, u8)) {
    let (what, directory, name) = pick;
    let directories: Vec<Id> = names
        .live()
        .ids()
        .filter(|id| names.live().is_directory(*id))
        .collect();
    let directory = directories[directory as usize % directories.len()];
    let at = Place::new(directory, format!("n{}", name % 6));
    let there = names.live().lookup(&at);
    match (what % 4, there) {
        (0, None) => {
            *next_id += 1;
            let kind = match what & 4 {
                0 => Kind::File,
                _ => Kind::Directory,
            };
            names.apply(Change::Link {
                at,
                id: Id(*next_id),
                kind,
            });
        }
        (1, Some((_, Kind::File))) => names.apply(Change::Unlink { at }),
        (2, Some((_, Kind::File))) => {
            let to = directories[(what as usize >> 3) % directories.len()];
            let to = Place::new(to, format!("m{}", name % 3));
            if !matches!(names.live().lookup(&to), Some((_, Kind::Directory))) {
                names.apply(Change::Rename { from: at, to });
            }
        }
        (3, _) => names.sync(directory),
        _ => {}
    }
}

proptest! {
    #[test]
    fn with_every_operation_kept_a_cut_leaves_what_was_seen(
        picks in proptest::collection::vec(any::<(u8, u8, u8)>(), 0..80),
    ) {
        let (mut names, mut next_id) = (Names::default(), 1);
        for pick in picks {
            step(&mut names, &mut next_id, pick);
            prop_assert_eq!(&names.after_cut(|_| true), names.live());
        }
    }

    #[test]
    fn a_cut_leaves_no_name_twice_and_no_path_without_its_parents(
        picks in proptest::collection::vec(any::<(u8, u8, u8)>(), 0..80),
        coins in any::<u64>(),
    ) {
        let (mut names, mut next_id) = (Names::default(), 1);
        for pick in picks {
            step(&mut names, &mut next_id, pick);
        }
        let mut coins = fastrand::Rng::with_seed(coins);
        let left = names.after_cut(|_| coins.bool());
        for (path, id) in left.files() {
            prop_assert_eq!(left.find(&path), Some((id, Kind::File)));
            prop_assert!(names.known().contains(&id));
        }
    }
}
