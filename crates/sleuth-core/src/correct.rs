//! Correcting a response: which words to repair, and which repairs to keep.
//!
//! Invariants
//! - A repair is kept only if flagged tokens per word fall, the reward rises, no sentence that was
//!   fine becomes flagged, and most of what was fine remains: deleting text is no repair.
//! - Spans of words lie on character boundaries, in order and disjoint.

mod correction;
mod difference;
mod keep;
mod request;
mod words;

pub use correction::{Attempt, CorrectEvent, Corrected, Correction, Proposal, Proposed, Rescored};
pub use difference::{Change, changes};
pub use keep::{DropReason, Judged, KeepRule};
pub use request::{CorrectRequest, CorrectorKind, GuidanceLevel, MAX_CANDIDATES, MAX_ROUNDS};
pub use words::{flagged_words, words};
