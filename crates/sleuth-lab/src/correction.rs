//! How good corrections are, by what is true and not by the model that guided them (TLDR section
//! 5.3 lets the same model judge).
//!
//! A folder of drawn scenes names in each record's `group_id` the scene that it is about, so that
//! every sentence can be judged, repaired ones too: read back as a claim and checked. A sentence that
//! cannot be read counts as false, unless a true response of its group says the same.

mod captions;
mod judge;
mod report;

pub use captions::CaptionTally;
pub use judge::{Fate, Judge, Judgement};
pub use report::{CorrectionReport, Outcomes, Tally};
