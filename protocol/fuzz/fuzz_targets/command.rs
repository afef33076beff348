#![no_main]
//! See `protocol_fuzz::command`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| protocol_fuzz::command(data));
