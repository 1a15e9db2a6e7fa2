//! See `crash_recovery` in tests/it/fuzz.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| esker_fuzz::crash_recovery(data));
