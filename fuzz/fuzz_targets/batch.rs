//! See `esker::fuzz::batch`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker::fuzz::batch(data));
