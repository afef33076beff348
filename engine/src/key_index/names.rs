//! What the files of the key index are called, beside the other companions.
//!
//! ```text
//! orbit/00000000001073741824.keys         of a full segment
//! orbit/00000000001073741824.0003.keyrun  of a stretch of a segment that has no `.keys` yet
//! ```

use crate::layout::{Layout, parse_segment_name, segment_name};
use reactor::fs;
use std::io;
use std::path::PathBuf;

const SEALED_SUFFIX: &str = ".keys";
const RUN_SUFFIX: &str = ".keyrun";

/// What a file's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Sealed { base: u64 },
    Run { base: u64, number: u32 },
}

/// What the name of a file in the companions' directory says; `None` if it is none of ours.
pub fn parse(name: &str) -> Option<Name> {
    if let Some(base) = name.strip_suffix(SEALED_SUFFIX) {
        let base = parse_segment_name(base)?;
        return Some(Name::Sealed { base });
    }
    let (base, number) = name.strip_suffix(RUN_SUFFIX)?.split_once('.')?;
    Some(Name::Run {
        base: parse_segment_name(base)?,
        number: number.parse().ok()?,
    })
}

pub fn path(layout: &Layout, name: Name) -> PathBuf {
    let name = match name {
        Name::Sealed { base } => segment_name(base) + SEALED_SUFFIX,
        Name::Run { base, number } => format!("{}.{number:04}{RUN_SUFFIX}", segment_name(base)),
    };
    layout.companions().join(name)
}

pub fn sealed(layout: &Layout, base: u64) -> PathBuf {
    path(layout, Name::Sealed { base })
}

/// All files of the key index that are there, by name. Blocks.
pub fn list(layout: &Layout) -> io::Result<Vec<Name>> {
    let names = fs::list(&layout.companions())?;
    Ok(names.iter().filter_map(|name| parse(name)).collect())
}

/// The runs of one segment with their numbers. Blocks.
pub fn runs_of(layout: &Layout, of: u64) -> io::Result<Vec<(PathBuf, u32)>> {
    let runs = list(layout)?.into_iter().filter_map(|name| match name {
        Name::Run { base, number } if base == of => Some((path(layout, name), number)),
        _ => None,
    });
    Ok(runs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn names_read_back_as_written() {
        let layout = Layout::new(&Config::for_root("/s"));
        let base = 1 << 30;
        for name in [Name::Sealed { base }, Name::Run { base, number: 12 }] {
            let path = path(&layout, name);
            let file = path.file_name().and_then(|file| file.to_str());
            assert_eq!(file.and_then(parse), Some(name));
        }
        assert_eq!(parse("00000000001073741824.index"), None);
        assert_eq!(parse("00000000001073741824.0003.part"), None);
        assert_eq!(parse("x.keys"), None);
    }
}
