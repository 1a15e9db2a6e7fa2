//! See `esker::fuzz::footer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker::fuzz::footer(data));
