//! A little space that is kept back, so that a full disk still takes the tables and the index.
//!
//! It is a file of no content. When the disk is as good as full it is removed, and what must be written then fits;
//! when there is room again it is made anew.

use crate::layout::Layout;
use reactor::{File, OpenOptions, fs};
use std::io;

const RESERVE_BYTES_MAX: u64 = 32 << 20;
/// Small segments are for small disks.
const SEGMENTS_PER_RESERVE: u64 = 4;
/// So many times its size has to be free before it is made.
const ROOM_FACTOR: u64 = 4;

/// How much is kept back.
pub fn reserve_bytes(segment_bytes: u64) -> u64 {
    (segment_bytes / SEGMENTS_PER_RESERVE).min(RESERVE_BYTES_MAX)
}

/// Makes or removes the reserve, given how much is free. Blocks.
pub fn keep(layout: &Layout, bytes: u64, available_bytes: u64) -> io::Result<()> {
    let path = layout.reserve();
    let is_there = fs::exists(&path);
    if is_there && available_bytes < bytes / 2 {
        tracing::warn!(
            available_bytes,
            reserve_bytes = bytes,
            "the disk is full; what was kept back for tables and indexes is given to them"
        );
        return fs::remove_file(&path);
    }
    if available_bytes < bytes * ROOM_FACTOR {
        return Ok(());
    }
    let options = OpenOptions {
        read: true,
        write: true,
        create: true,
        ..OpenOptions::default()
    };
    // After a power cut it may be there and hold nothing.
    let made = File::open(&path, options).and_then(|file| match file.len()? < bytes {
        true => file.allocate(bytes),
        false => Ok(()),
    });
    made.inspect_err(|_| {
        // Without its space it is of no use.
        let _ = fs::remove_file(&path);
    })
}
