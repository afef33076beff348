//! The bits of the several `sysFlag`s.

// Of a message (in its record).
/// The body is compressed, see [`compression`].
pub const COMPRESSED: i32 = 1;
pub const MULTI_TAGS: i32 = 1 << 1;
pub const TRANSACTION_NONE: i32 = 0;
/// A half message.
pub const TRANSACTION_PREPARED: i32 = 1 << 2;
pub const TRANSACTION_COMMIT: i32 = 2 << 2;
pub const TRANSACTION_ROLLBACK: i32 = 3 << 2;
pub const BORN_HOST_V6: i32 = 1 << 4;
pub const STORE_HOST_V6: i32 = 1 << 5;
pub const NEED_UNWRAP: i32 = 1 << 6;
pub const INNER_BATCH: i32 = 1 << 7;

const COMPRESSION_SHIFT: i32 = 8;
const COMPRESSION_MASK: i32 = 7 << COMPRESSION_SHIFT;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Lz4,
    Zstd,
    /// Also what clients before 4.9.4 mean, which set no kind.
    Zlib,
}

/// The kind of compression, `None` for a plain body. A kind nobody has defined reads as zlib.
pub fn compression(sys_flag: i32) -> Option<Compression> {
    if sys_flag & COMPRESSED == 0 {
        return None;
    }
    Some(match (sys_flag & COMPRESSION_MASK) >> COMPRESSION_SHIFT {
        1 => Compression::Lz4,
        2 => Compression::Zstd,
        _ => Compression::Zlib,
    })
}

/// The flag with the mark and kind of a compression.
pub fn with_compression(sys_flag: i32, kind: Compression) -> i32 {
    let number = match kind {
        Compression::Lz4 => 1,
        Compression::Zstd => 2,
        Compression::Zlib => 3,
    };
    sys_flag & !COMPRESSION_MASK | number << COMPRESSION_SHIFT | COMPRESSED
}

/// One of the `TRANSACTION_` values.
pub fn transaction(sys_flag: i32) -> i32 {
    sys_flag & TRANSACTION_ROLLBACK
}

/// The flag with another transaction value.
pub fn with_transaction(sys_flag: i32, value: i32) -> i32 {
    sys_flag & !TRANSACTION_ROLLBACK | value
}

/// Bits of a pull's flag.
pub mod pull {
    /// `commitOffset` counts.
    pub const COMMIT_OFFSET: i32 = 1;
    /// The broker may hold the request until something arrives.
    pub const SUSPEND: i32 = 1 << 1;
    /// The request carries its own filter expression.
    pub const SUBSCRIPTION: i32 = 1 << 2;
    pub const CLASS_FILTER: i32 = 1 << 3;
    pub const LITE_PULL: i32 = 1 << 4;
}

/// Bits of a topic's flag.
pub mod topic {
    pub const UNIT: i32 = 1;
    pub const UNIT_SUB: i32 = 1 << 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_body_without_a_kind_is_zlib() {
        assert_eq!(compression(0x100), None);
        assert_eq!(compression(COMPRESSED), Some(Compression::Zlib));
        for kind in [Compression::Lz4, Compression::Zstd, Compression::Zlib] {
            assert_eq!(compression(with_compression(0x700, kind)), Some(kind));
        }
    }

    #[test]
    fn the_transaction_bits_leave_the_others_alone() {
        let flag = with_transaction(COMPRESSED | TRANSACTION_PREPARED, TRANSACTION_ROLLBACK);
        assert_eq!(transaction(flag), TRANSACTION_ROLLBACK);
        assert_eq!(with_transaction(flag, TRANSACTION_NONE), COMPRESSED);
    }
}
