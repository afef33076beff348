#![no_main]
//! See `protocol_fuzz::batch`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol_fuzz::batch(data));
