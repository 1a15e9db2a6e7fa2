//! See `esker::fuzz::entries`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker::fuzz::entries(data));
