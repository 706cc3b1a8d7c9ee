//! The engine: device workers, the admission queue and token-budget batching.
//!
//! One OS thread owns a [`RewardModel`]; work reaches it through one bounded queue, so requests of
//! all callers share batches. Nothing here reads files, decodes images or tokenises.

mod model;

pub use model::{ModelFailure, RewardModel};
