//! The domain of Sleuth: what a token reward is, how rewards aggregate, and how work fails.
//!
//! Pure: no I/O, no async, no serialisation, no tensor. Every other crate speaks these types.
//!
//! Invariants
//! - A reward exists only as part of a [`Scored`]; a [`Failure`] never carries a number that could
//!   be taken for one.
//! - Offsets are bytes of the UTF-8 text of the response, half open.

mod aggregate;
mod correct;
mod failure;
mod load;
mod policy;
mod prefix;
mod prepared;
mod realign;
mod request;
mod scored;
mod secret;
mod self_test;
mod sentence;
mod span;

pub use aggregate::{Aggregation, UnknownAggregation};
pub use correct::{
    Attempt, Change, CorrectEvent, CorrectRequest, Corrected, Correction, CorrectorKind,
    DropReason, GuidanceLevel, Judged, KeepRule, MAX_CANDIDATES, MAX_ROUNDS, Proposal, Proposed,
    Rescored, changes, flagged_words, words,
};
pub use failure::{ErrorClass, Failure, Reason};
pub use load::{Load, LoadReport, PrefixChanges, ResidentPrefix};
pub use policy::{PolicyFault, PolicyMismatch, PolicyTokens};
pub use prefix::prefix_digest;
pub use prepared::{Encoded, PixelCount, Pixels, Prepared};
pub use realign::{Covered, PolicyReward, Realignment, UnknownRealignment, realign, spans_of_ends};
pub use request::{Context, Group, ImageSource, ScoreRequest};
pub use scored::{CacheUse, ModelCard, Options, Scored, SentenceReward, Timing, TokenReward};
pub use secret::Secret;
pub use self_test::{Differs, SelfTest, SelfTestCase, Tolerance};
pub use sentence::{SentenceRule, sentences};
pub use span::{ByteSpan, InvalidSpan};
