//! See `esker::fuzz::index`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker::fuzz::index(data));
