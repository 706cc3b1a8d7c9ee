//! The data folder: `data.jsonl`, a line per response, and the images it names.
//!
//! Labels are byte spans of the response, so that they fit any tokenizer; [`token_labels`] projects
//! them. A deletion is labelled on the next word.

mod label;
mod lines;
mod record;
mod taxonomy;

pub use label::{Label, token_labels};
pub use lines::{DATA_FILE, DataError, MAX_LINE_BYTES, Records, write_records};
pub use record::{InvalidRecord, Record};
pub use taxonomy::{Taxonomy, UnknownTaxonomy};
