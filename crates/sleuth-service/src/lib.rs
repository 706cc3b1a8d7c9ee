//! Use cases: what a caller asks for, from request to verdict.
//!
//! [`Scorer`] is the seam that the gRPC server, the command line and tests share; [`ScoreService`]
//! is the one that scores, with a [`Prepare`] for what callers send and an engine for the model.
//!
//! Invariants
//! - An item ends with rewards that are all finite, or with a failure: never with both.
//! - What cannot be taken is refused before its image is decoded, and what waits is bounded.
//! - Dropping an item's future frees all it held, but never ends work that others wait for.

mod check;
mod failures;
mod flights;
mod intake;
mod prepare;
mod score;
mod settings;
mod verdict;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use sleuth_core::{Encoded, Failure, ModelCard, ScoreRequest, Scored};

pub use prepare::Prepare;
pub use score::ScoreService;
pub use settings::ServiceSettings;

/// A future that can be sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Scores responses.
pub trait Scorer: Send + Sync + 'static {
    /// Scores one item. Dropping the future gives the item up.
    fn score(&self, request: ScoreRequest<Bytes>) -> BoxFuture<'_, Result<Scored, Failure>>;

    /// Tokenises a text as a response is tokenised.
    fn tokenize(&self, text: &str) -> Result<Encoded, Failure>;

    /// What is loaded.
    fn model(&self) -> &ModelCard;
}
