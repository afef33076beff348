#![no_main]
//! See `protocol_fuzz::properties`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol_fuzz::properties(data));
