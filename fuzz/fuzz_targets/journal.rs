//! See `esker::fuzz::journal`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker::fuzz::journal(data));
