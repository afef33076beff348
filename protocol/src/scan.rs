//! Looking for a byte, eight at a time: the inner loop of reading a header.

/// Where the first `A` or `B` is; the length when there is neither.
#[inline]
pub(crate) fn find_either<const A: u8, const B: u8>(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((chunk, behind)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let hits = zero_bytes(word ^ repeat(A)) | zero_bytes(word ^ repeat(B));
        if hits != 0 {
            return bytes.len() - rest.len() + hits.trailing_zeros() as usize / 8;
        }
        rest = behind;
    }
    let tail = rest.iter().position(|&byte| byte == A || byte == B);
    bytes.len() - rest.len() + tail.unwrap_or(rest.len())
}

const fn repeat(byte: u8) -> u64 {
    0x0101_0101_0101_0101 * byte as u64
}

/// The top bit of the lowest zero byte is set (bits above the first hit may be wrong).
#[inline]
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(repeat(1)) & !word & repeat(0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_found_wherever_it_stands_in_a_word() {
        for length in 0..40 {
            for at in 0..length {
                for other in [0x80u8, 0x23, 0x5D, 0xA2, 0x00, 0xFF] {
                    let mut bytes = vec![other; length];
                    bytes[length - 1] = b'"';
                    for wanted in [b'"', b'\\'] {
                        bytes[at] = wanted;
                        assert_eq!(find_either::<b'"', b'\\'>(&bytes), at);
                    }
                }
            }
            assert_eq!(find_either::<b'"', b'\\'>(&vec![0xFF; length]), length);
        }
    }
}
