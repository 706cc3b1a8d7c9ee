//! The use case "correct": score, propose repairs of what is flagged, score again, keep or drop.
//!
//! Invariants
//! - Every item ends with exactly one [`Correction`](sleuth_core::Correction), whatever fails.
//! - One version of the model judges an item from its first scoring to its last.
//! - A repair replaces what was there only by [`KeepRule`](sleuth_core::KeepRule); what a corrector
//!   says of its own repairs counts for nothing.
//! - The candidates of a round are scored together, behind one prefix.

mod builtin;
mod corrector;
mod endpoint;
mod guidance;
mod progress;
mod rescorer;
mod run;

pub use builtin::BuiltinCorrector;
pub use corrector::{Corrector, EncodedImage, Repair, RepairRequest};
pub use endpoint::{EndpointCorrector, EndpointRefused, EndpointSettings};
pub use guidance::guidance_prompt;
pub use rescorer::{Correctable, Rescorer, Sight};
pub use run::{Corrections, Correctors};
