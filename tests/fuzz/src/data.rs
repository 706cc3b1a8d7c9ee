//! The parser of `data.jsonl`, from its own files: all of `sleuth-lab` would bring the tensor
//! library along, and it would have to be built with coverage counters.

#[path = "../../../crates/sleuth-lab/src/data/label.rs"]
mod label;
#[path = "../../../crates/sleuth-lab/src/data/lines.rs"]
mod lines;
#[path = "../../../crates/sleuth-lab/src/data/record.rs"]
mod record;

pub(crate) use label::{Label, token_labels};
pub(crate) use lines::{DataError, MAX_LINE_BYTES, Records, write_records};
pub(crate) use record::{InvalidRecord, Record};
