//! What may come from outside, given any bytes: each function here takes them and asserts what must
//! hold whatever they are.
//!
//! libFuzzer drives them from `fuzz/` (`cargo xtask fuzz`); the test here runs each over the files
//! of `fuzz/corpus`, where what was once found stays.
#![expect(clippy::expect_used, clippy::panic, reason = "a failed expectation is what it looks for")]

#[expect(dead_code, unreachable_pub, reason = "these files belong to another crate")]
mod data;
mod data_lines;
mod image_decode;
mod reader;
mod realignment;
mod response_text;
mod settlement;
mod tokenizer_json;
pub mod toys;
mod wire;

pub use data_lines::data_lines;
pub use image_decode::image_decode;
pub use realignment::realignment;
pub use response_text::response_text;
pub use settlement::settlement;
pub use tokenizer_json::tokenizer_json;
pub use wire::wire;

/// A target and the name of its folder in `fuzz/corpus`.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, by name.
pub const TARGETS: [Target; 7] = [
    ("data_lines", data_lines),
    ("image_decode", image_decode),
    ("realignment", realignment),
    ("response_text", response_text),
    ("settlement", settlement),
    ("tokenizer_json", tokenizer_json),
    ("wire", wire),
];
