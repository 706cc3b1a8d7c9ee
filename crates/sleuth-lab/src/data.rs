//! The data folder: `data.jsonl`, a line per response, and the images it names.

mod label;
mod taxonomy;

pub use label::{Label, token_labels};
pub use taxonomy::{Taxonomy, UnknownTaxonomy};
