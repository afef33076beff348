#![no_main]
//! See `protocol_fuzz::headers`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol_fuzz::headers(data));
