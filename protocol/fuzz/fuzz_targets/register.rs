#![no_main]
//! See `protocol_fuzz::register`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol_fuzz::register(data));
