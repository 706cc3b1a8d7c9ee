//! Use cases: what a caller asks for, from request to verdict.
//!
//! [`Scorer`] is the seam that the gRPC server, the command line and tests share.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use sleuth_core::{Encoded, Failure, ModelCard, ScoreRequest, Scored};

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
