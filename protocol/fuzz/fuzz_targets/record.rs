#![no_main]
//! See `protocol_fuzz::record`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol_fuzz::record(data));
