//! See `esker::fuzz::filter`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker::fuzz::filter(data));
