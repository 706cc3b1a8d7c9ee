//! The engine: device workers, the admission queue and token-budget batching.
//!
//! One OS thread owns a [`RewardModel`]; work reaches it through one bounded queue, so requests of
//! all callers share batches. Nothing here reads files, decodes images or tokenises.
//!
//! Invariants
//! - The queue is bounded by items and by tokens; what does not fit is refused at once.
//! - Every accepted item ends exactly once, and an item whose caller is gone costs nothing more.
//! - The model is built, used and dropped on its own thread; no lock is held while it computes.

mod backbone;
mod cache;
mod clock;
mod cost;
mod devices;
mod engine;
mod error;
#[cfg(any(test, feature = "test-util"))]
pub mod fake;
mod generate;
mod measured;
mod model;
mod open;
mod policy;
mod queue;
mod settings;
mod simulated;
mod stats;
mod submission;
mod worker;

pub use backbone::{BackboneWorker, OnDevice, PoolSettings};
pub use cache::CacheStats;
pub use cost::Work;
pub use devices::{DeviceChoice, DeviceError, Devices};
pub use engine::{Engine, Shutdown};
pub use error::{EngineError, StartError};
pub use generate::{
    Candidate, Ended, Generate, Generator, GeneratorSettings, LanguageError, LanguageFacts,
    LanguageSettings, LanguageWorker, Rate, Sampling, Stop, TokenSet, Units,
};
pub use measured::{Distribution, Measured, Memory, Phases};
pub use model::{
    ItemShape, KvCost, ModelFacts, ModelFailure, Outcome, Part, Prefixes, Reuse, RewardModel, Task,
};
pub use open::{OpenItem, OpenStats};
pub use queue::{EngineLoad, Forecast, USUAL_PROMPT, USUAL_RESPONSE};
pub use settings::EngineSettings;
pub use simulated::{SimulatedDevice, SimulatedModel};
pub use stats::{BATCH_TOKEN_BOUNDS, EngineStats, Health};
pub use submission::{EngineScores, Reservation, Submission, Terms};
