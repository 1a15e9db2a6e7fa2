//! See `esker::fuzz::manifest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker::fuzz::manifest(data));
