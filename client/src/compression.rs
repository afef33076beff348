//! Bodies that travel compressed, in the three forms RocketMQ knows. Which one is said by bits of the message's flag;
//! a receiver unpacks every form whatever it sends itself.

use std::io::{Read, Write};

use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use lz4_flex::frame::{FrameDecoder, FrameEncoder};
use protocol::sysflag::{self, Compression};

/// A compressed body may not unpack to more than this: a frame's limit, well above any honest message.
const UNPACKED_BYTES_MAX: u64 = 64 << 20;
/// `compressLevel`: 0 (fast) to 9 (small), for zlib and zstd.
pub(crate) const LEVEL_DEFAULT: u32 = 5;
pub(crate) const LEVEL_MAX: u32 = 9;

/// What to compress, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packing {
    /// Bodies from this length on are compressed.
    pub bytes_min: usize,
    pub kind: Compression,
    pub level: u32,
}

/// The body to send if it is another, and the flags that say what was done to it.
pub(crate) fn pack(body: &[u8], packing: Packing) -> (Option<Vec<u8>>, i32) {
    if body.len() < packing.bytes_min {
        return (None, 0);
    }
    let packed = match packing.kind {
        Compression::Zlib => zlib(body, packing.level),
        Compression::Lz4 => lz4(body),
        Compression::Zstd => zstd::encode_all(body, packing.level as i32),
    };
    let packed = packed.expect("writing to memory does not fail");
    (Some(packed), sysflag::with_compression(0, packing.kind))
}

fn zlib(body: &[u8], level: u32) -> std::io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(body)?;
    encoder.finish()
}

fn lz4(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = FrameEncoder::new(Vec::new());
    encoder.write_all(body)?;
    encoder.finish().map_err(std::io::Error::from)
}

/// The body as it was before it was compressed, if it was.
pub(crate) fn unpack(body: &[u8], flags: i32) -> Result<Vec<u8>, String> {
    let read = match sysflag::compression(flags) {
        None => return Ok(body.to_vec()),
        Some(Compression::Zlib) => read_all(ZlibDecoder::new(body)),
        Some(Compression::Lz4) => read_all(FrameDecoder::new(body)),
        Some(Compression::Zstd) => zstd::Decoder::new(body).and_then(read_all),
    };
    let unpacked = read.map_err(|error| format!("the body cannot be unpacked: {error}"))?;
    match (unpacked.len() as u64) < UNPACKED_BYTES_MAX {
        true => Ok(unpacked),
        false => Err("the body unpacks to too much".into()),
    }
}

fn read_all(decoder: impl Read) -> std::io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    decoder
        .take(UNPACKED_BYTES_MAX)
        .read_to_end(&mut unpacked)?;
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [Compression; 3] = [Compression::Zlib, Compression::Lz4, Compression::Zstd];

    fn packing(kind: Compression) -> Packing {
        Packing {
            bytes_min: 1_000,
            kind,
            level: LEVEL_DEFAULT,
        }
    }

    #[test]
    fn large_bodies_shrink_in_every_form_and_small_ones_stay() {
        let body = b"so much of the same ".repeat(1_000);
        for kind in KINDS {
            let (packed, flags) = pack(&body, packing(kind));
            assert!(packed.expect("large enough").len() < body.len() / 10);
            assert_eq!(sysflag::compression(flags), Some(kind));
            assert_eq!(pack(&body[..999], packing(kind)), (None, 0));
        }
    }

    #[test]
    fn rubbish_is_an_error_in_every_form() {
        for kind in KINDS {
            let flags = sysflag::with_compression(0, kind);
            assert!(unpack(b"rubbish", flags).is_err(), "{kind:?}");
        }
        assert_eq!(unpack(b"rubbish", 0), Ok(b"rubbish".to_vec()));
    }

    #[test]
    fn a_body_that_unpacks_to_too_much_is_refused() {
        let bomb = vec![0; UNPACKED_BYTES_MAX as usize];
        let (packed, flags) = pack(&bomb, packing(Compression::Zstd));
        assert!(unpack(&packed.expect("large enough"), flags).is_err());
    }

    proptest! {
        #[test]
        fn what_is_packed_unpacks_to_the_same(body in proptest::collection::vec(any::<u8>(), 1_000..5_000)) {
            for kind in KINDS {
                let (packed, flags) = pack(&body, packing(kind));
                prop_assert_eq!(unpack(&packed.expect("large enough"), flags), Ok(body.clone()));
            }
        }
    }
}
