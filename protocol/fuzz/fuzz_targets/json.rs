#![no_main]
//! See `protocol_fuzz::json`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol_fuzz::json(data));
