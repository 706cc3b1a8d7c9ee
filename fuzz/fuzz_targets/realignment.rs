#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sleuth_fuzz_targets::realignment(bytes));
