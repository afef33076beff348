//! The unit a disk writes whole: everything else may be torn. Pure arithmetic on ranges of a file.

use std::ops::Range;

/// What every disk writes as a whole, also those that call themselves 4 KiB ones.
pub const SECTOR_BYTES: u64 = 512;

pub type Sector = [u8; SECTOR_BYTES as usize];

/// Numbers of the sectors that `len` bytes at `offset` touch.
pub fn touched(offset: u64, len: u64) -> Range<u64> {
    if len == 0 {
        return 0..0;
    }
    offset / SECTOR_BYTES..(offset + len).div_ceil(SECTOR_BYTES)
}

/// The part of `offset..offset + len` that lies in a sector: where in the sector, and where in the range.
pub fn overlap(sector: u64, offset: u64, len: u64) -> (Range<usize>, Range<usize>) {
    let start = sector * SECTOR_BYTES;
    let from = offset.max(start);
    let to = (offset + len).min(start + SECTOR_BYTES);
    assert!(from < to, "the range does not touch sector {sector}");
    let within = (from - start) as usize..(to - start) as usize;
    let of_range = (from - offset) as usize..(to - offset) as usize;
    (within, of_range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_touches_the_sectors_it_begins_and_ends_in() {
        assert_eq!(touched(0, 512), 0..1);
        assert_eq!(touched(511, 2), 0..2);
        assert_eq!(touched(1024, 0), 0..0);
        assert_eq!(touched(600, 1000), 1..4);
    }

    #[test]
    fn an_overlap_is_the_same_bytes_seen_from_both_sides() {
        assert_eq!(overlap(0, 500, 100), (500..512, 0..12));
        assert_eq!(overlap(1, 500, 100), (0..88, 12..100));
        assert_eq!(overlap(2, 500, 1000), (0..476, 524..1000));
    }
}
