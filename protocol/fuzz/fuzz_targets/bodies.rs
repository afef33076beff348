#![no_main]
//! See `protocol_fuzz::bodies`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol_fuzz::bodies(data));
