//! The tokenizer library asserts some of what it expects of a file, and `from_json` makes that an
//! error: here a panic ends the process only where nothing catches it.
#![no_main]

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::sync::Mutex;

static LAST: Mutex<String> = Mutex::new(String::new());

libfuzzer_sys::fuzz_target!(
    init: set_hook(Box::new(|panic| *LAST.lock().expect("no panic while held") = panic.to_string())),
    |bytes: &[u8]| {
        let target = AssertUnwindSafe(|| sleuth_fuzz_targets::tokenizer_json(bytes));
        if catch_unwind(target).is_err() {
            eprintln!("{}", LAST.lock().expect("no panic while held"));
            std::process::abort();
        }
    }
);
