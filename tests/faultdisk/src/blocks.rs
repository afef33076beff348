//! Which blocks of a file take up space on the disk. A write into a hole takes some, and fails on a full disk; a write
//! into what was allocated does not. Pure.

use std::ops::Range;

/// What file systems hand out space in.
pub const BLOCK_BYTES: u64 = 4096;

const WORD_BITS: u64 = u64::BITS as u64;

/// A bit for each block.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    words: Vec<u64>,
    count: u64,
}

impl Blocks {
    pub fn bytes(&self) -> u64 {
        self.count * BLOCK_BYTES
    }

    /// How many bytes of space a write here would take.
    pub fn missing_bytes(&self, offset: u64, len: u64) -> u64 {
        let missing = touched(offset, len).filter(|block| !self.has(*block));
        missing.count() as u64 * BLOCK_BYTES
    }

    pub fn take(&mut self, offset: u64, len: u64) {
        for block in touched(offset, len) {
            let word = (block / WORD_BITS) as usize;
            if self.words.len() <= word {
                self.words.resize(word + 1, 0);
            }
            if !self.has(block) {
                self.words[word] |= 1 << (block % WORD_BITS);
                self.count += 1;
            }
        }
    }

    /// Gives back the blocks that lie wholly inside.
    pub fn give_back(&mut self, offset: u64, len: u64) {
        let first = offset.div_ceil(BLOCK_BYTES);
        let end =
            (offset.saturating_add(len) / BLOCK_BYTES).min(self.words.len() as u64 * WORD_BITS);
        for block in first..end {
            if self.has(block) {
                self.words[(block / WORD_BITS) as usize] &= !(1 << (block % WORD_BITS));
                self.count -= 1;
            }
        }
    }

    fn has(&self, block: u64) -> bool {
        let word = self.words.get((block / WORD_BITS) as usize);
        word.is_some_and(|word| word >> (block % WORD_BITS) & 1 == 1)
    }
}

fn touched(offset: u64, len: u64) -> Range<u64> {
    if len == 0 {
        return 0..0;
    }
    offset / BLOCK_BYTES..(offset + len).div_ceil(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_taken_once_and_given_back_in_whole_blocks() {
        let mut blocks = Blocks::default();
        assert_eq!(blocks.missing_bytes(100, 8192), 3 * BLOCK_BYTES);
        blocks.take(100, 8192);
        blocks.take(4096, 10);
        assert_eq!(blocks.bytes(), 3 * BLOCK_BYTES);
        assert_eq!(blocks.missing_bytes(8192, 8192), BLOCK_BYTES);
        blocks.give_back(100, 8192);
        assert_eq!(blocks.bytes(), 2 * BLOCK_BYTES);
        blocks.give_back(0, u64::MAX);
        assert_eq!(blocks.bytes(), 0);
    }
}
