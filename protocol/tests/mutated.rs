//! The fuzz targets' bodies over mutated captured bytes: bounded, and the same on every run.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
mod targets;

const ROUNDS_PER_FILE: usize = 400;

type Target = fn(&[u8]);

/// Captured files whose names end like this, what they go through, and bytes to leave out ahead.
const TARGETS: [(&str, Target, usize); 9] = [
    (".frame", targets::command, 4),
    (".frame", targets::headers, 4),
    (".bytes", targets::record, 0),
    ("batch.body", targets::batch, 0),
    (".bytes", targets::properties, 0),
    (".body", targets::json, 0),
    (".body", targets::bodies, 0),
    (".json", targets::bodies, 0),
    ("compressed.body", targets::register, 0),
];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Changes a few bytes, cuts, repeats a piece, or splices in what decoders stumble over.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const AWKWARD: [&[u8]; 14] = [
        b"\"",
        b"\\",
        b"{",
        b"}",
        b"[",
        b"{{",
        b"\\u00",
        b"'",
        b"null",
        b"-1",
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xff",
        b"\x01",
        b"\x02",
    ];
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => {
                let piece = bytes[at..bytes.len().min(at + 16)].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let awkward = AWKWARD[random.below(AWKWARD.len())];
                bytes.splice(at..at, awkward.iter().copied());
            }
            _ => {
                let end = bytes.len().min(at + random.below(8));
                bytes.drain(at..end);
            }
        }
    }
}

#[test]
fn mutated_captured_bytes_break_no_decoder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captured");
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut runs = 0;
    for release in ["5.4.0", "4.9.7"] {
        let entries = std::fs::read_dir(folder.join(release)).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let name = path.to_string_lossy();
            let bytes = std::fs::read(&path).unwrap();
            for (_, target, skip) in TARGETS.iter().filter(|target| name.ends_with(target.0)) {
                target(&bytes[*skip..]);
                for _ in 0..ROUNDS_PER_FILE {
                    let mut mutated = bytes[*skip..].to_vec();
                    mutate(&mut mutated, &mut random);
                    target(&mutated);
                    runs += 1;
                }
            }
        }
    }
    assert!(runs > 40_000, "{runs} runs");
}
