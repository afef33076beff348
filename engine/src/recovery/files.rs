//! The files of the log as they are found: which are segments, what does not belong there, whose log it is.
//!
//! `find` only looks: nothing is opened for writing and nothing changed. Opening a store refuses at the first problem
//! (an unfinished newest file it removes), `check` reports all of them.

use crate::layout::{Layout, UNFINISHED_SUFFIX, parse_segment_name, segment_name};
use reactor::{File, OpenOptions, fs};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What stands in the note, before the log offset.
const ORIGIN_UNTIL: &str = "OrbitMQ from ";

/// A file with a segment's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    pub base: u64,
    pub path: PathBuf,
    pub bytes: u64,
}

/// What is wrong with the set of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Not a log file.
    Foreign(PathBuf),
    /// Two files for one place.
    Double(PathBuf),
    /// Its name lies inside the file before it.
    Overlaps(PathBuf),
    Missing(PathBuf),
    WrongLength {
        path: PathBuf,
        found: u64,
        expected: u64,
    },
    /// The newest file has not got its size yet: somebody died while making it, and nothing is in it.
    Unfinished(PathBuf),
}

/// The log's files in order, without those that a problem names as not belonging there.
#[derive(Debug, Default)]
pub struct Files {
    pub files: Vec<FoundFile>,
    pub problems: Vec<Problem>,
}

/// Lists the log directories. Blocks.
pub fn find(log_dirs: &[PathBuf], segment_bytes: u64) -> io::Result<Files> {
    let mut found = Files::default();
    let mut named = Vec::new();
    for dir in log_dirs {
        for name in fs::list(dir)? {
            let path = dir.join(&name);
            match parse_segment_name(&name) {
                Some(base) => named.push((base, path)),
                // Where the directory is a mount point of its own.
                None if name == "lost+found" => {}
                None => found.problems.push(Problem::Foreign(path)),
            }
        }
    }
    named.sort();
    let count = named.len();
    for (number, (base, path)) in named.into_iter().enumerate() {
        let bytes = length(&path)?;
        if let Some(previous) = found.files.last() {
            let end = previous.base + segment_bytes;
            if base < end {
                found.problems.push(match base == previous.base {
                    true => Problem::Double(path),
                    false => Problem::Overlaps(path),
                });
                continue;
            }
            if base > end {
                let dir = path.parent().unwrap_or(Path::new(""));
                let missing = dir.join(segment_name(end));
                found.problems.push(Problem::Missing(missing));
            }
        }
        if bytes == 0 && number + 1 == count {
            found.problems.push(Problem::Unfinished(path));
            continue;
        }
        if bytes != segment_bytes {
            let (path, expected) = (path.clone(), segment_bytes);
            found.problems.push(Problem::WrongLength {
                path,
                found: bytes,
                expected,
            });
        }
        found.files.push(FoundFile { base, path, bytes });
    }
    Ok(found)
}

/// The length that the files of a log have: most of them, because one may be damaged or unfinished. `None` without
/// files. Blocks.
pub fn segment_bytes(log_dirs: &[PathBuf]) -> io::Result<Option<u64>> {
    let mut lengths: BTreeMap<u64, usize> = BTreeMap::new();
    for dir in log_dirs.iter().filter(|dir| fs::exists(dir)) {
        for name in fs::list(dir)? {
            if parse_segment_name(&name).is_some() {
                *lengths.entry(length(&dir.join(name))?).or_default() += 1;
            }
        }
    }
    lengths.remove(&0);
    let usual = lengths
        .into_iter()
        .max_by_key(|(bytes, files)| (*files, *bytes));
    Ok(usual.map(|(bytes, _)| bytes))
}

fn length(path: &Path) -> io::Result<u64> {
    let options = OpenOptions {
        read: true,
        ..OpenOptions::default()
    };
    File::open(path, options)?.len()
}

/// Whether RocketMQ had the store open since we last did, or it never was ours.
pub fn is_rocketmqs(layout: &Layout, files: &[FoundFile]) -> bool {
    let traces = layout.rocketmqs_own();
    traces.iter().any(|path| fs::exists(path)) || !files.is_empty() && !fs::exists(&layout.origin())
}

/// Below this log offset RocketMQ's rules hold: a queue may have gaps and may start anew. Blocks.
pub fn rocketmqs_until(layout: &Layout, files: &[FoundFile]) -> u64 {
    if is_rocketmqs(layout, files) {
        return u64::MAX;
    }
    let said = match fs::read(&layout.origin()) {
        Ok(said) => said,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return 0,
        Err(_) => return u64::MAX,
    };
    let text = String::from_utf8_lossy(&said);
    let until = text.strip_prefix(ORIGIN_UNTIL);
    until
        .and_then(|until| until.trim().parse().ok())
        .unwrap_or(u64::MAX)
}

/// Notes that the log is ours from `until` on. Blocks.
pub fn write_origin(layout: &Layout, until: u64) -> io::Result<()> {
    let path = layout.origin();
    let mut unfinished = path.clone().into_os_string();
    unfinished.push(UNFINISHED_SUFFIX);
    let unfinished = PathBuf::from(unfinished);
    let options = OpenOptions {
        read: true,
        write: true,
        create: true,
        truncate: true,
        ..OpenOptions::default()
    };
    let file = File::open(&unfinished, options)?;
    file.write_all_at_blocking(format!("{ORIGIN_UNTIL}{until}\n").as_bytes(), 0)?;
    file.sync_blocking()?;
    fs::rename(&unfinished, &path)?;
    fs::sync_dir(&layout.companions())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(dir: &Path, name: &str, bytes: u64) {
        let file = std::fs::File::create(dir.join(name)).expect("a temporary directory");
        file.set_len(bytes).expect("a sparse file");
    }

    #[test]
    fn every_problem_of_the_set_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dirs = [dir.path().to_path_buf()];
        make(dir.path(), "00000000000000004096", 4096);
        make(dir.path(), "00000000000000005000", 4096);
        make(dir.path(), "00000000000000016384", 100);
        make(dir.path(), "00000000000000020480", 0);
        make(dir.path(), "notes", 3);
        let found = find(&dirs, 4096).expect("it can be listed");
        let at = |name: &str| dir.path().join(name);
        let expected = [
            Problem::Foreign(at("notes")),
            Problem::Overlaps(at("00000000000000005000")),
            Problem::Missing(at("00000000000000008192")),
            Problem::WrongLength {
                path: at("00000000000000016384"),
                found: 100,
                expected: 4096,
            },
            Problem::Unfinished(at("00000000000000020480")),
        ];
        assert_eq!(found.problems, expected);
        let bases: Vec<u64> = found.files.iter().map(|file| file.base).collect();
        assert_eq!(bases, [4096, 16384]);
        assert_eq!(segment_bytes(&dirs).expect("it can be listed"), Some(4096));
    }
}
