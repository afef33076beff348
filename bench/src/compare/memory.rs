//! Touches the machine's memory once before anything is measured. A virtual machine is given its memory page by page
//! when it first uses it, which costs many times what using it again does; without this, whoever writes first pays
//! for all.

use std::fs;
use std::hint::black_box;

const PAGE_BYTES: usize = 4096;
const CHUNK_BYTES: usize = 256 << 20;

/// Touches so many percent of what is available, all at once, and gives it back.
pub fn touch(percent: u8) {
    let available = available_bytes().unwrap_or(0);
    let wanted = available / 100 * usize::from(percent.min(95));
    let mut held: Vec<Vec<u8>> = Vec::new();
    for _ in 0..wanted / CHUNK_BYTES {
        let mut chunk = vec![0u8; CHUNK_BYTES];
        chunk
            .iter_mut()
            .step_by(PAGE_BYTES)
            .for_each(|byte| *byte = 1);
        held.push(black_box(chunk));
    }
}

fn available_bytes() -> Option<usize> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kib: usize = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_memory_and_touching_none_of_it_is_harmless() {
        assert!(available_bytes().expect("Linux tells") > 1 << 20);
        touch(0);
    }
}
