//! Use cases: what a caller asks for, from request to verdict.
//!
//! [`Scorer`] is the seam that the gRPC server, the command line and tests share; [`ScoreService`]
//! is the one that scores, with a [`Prepare`] for what callers send and an engine for the model.
//!
//! Invariants
//! - An item ends with rewards that are all finite, or with a failure: never with both.
//! - What cannot be taken is refused before its image is decoded, and what waits is bounded.
//! - Dropping an item's future frees all it held, but never ends work that others wait for.
//! - Under one idempotency key an item is computed once, and one version scores a group.

mod admission;
mod attendance;
mod caller;
mod check;
mod correct;
mod failures;
#[cfg(any(test, feature = "test-util"))]
pub mod fake;
mod flights;
mod images;
mod intake;
mod item;
mod model;
mod once;
mod open;
mod open_score;
mod prepare;
mod prove;
mod registry;
mod rewards;
mod score;
mod settings;
mod stats;
mod swap;
mod threads;
mod verdict;
mod weighted;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use sleuth_core::{Context, Encoded, Failure, ModelCard, ScoreRequest, Scored};

pub use admission::{AdmissionSettings, TenantLimits};
pub use caller::Caller;
pub use correct::{
    BuiltinCorrector, Correctable, Corrections, Corrector, Correctors, EncodedImage,
    EndpointCorrector, EndpointRefused, EndpointSettings, Repair, RepairRequest, Rescorer, Sight,
    guidance_prompt,
};
pub use images::{ImageStats, ImageStore, Put, Upload};
pub use model::LoadedModel;
pub use once::{IdempotencySettings, IdempotencyStats};
pub use open::{Appended, OpenEvent, OpenItem, OpenSettings, Rewards};
pub use prepare::{Growing, Prepare};
pub use prove::{Disproof, Proof, Unproven};
pub use registry::{AdapterInfo, GroupSettings, Registry};
pub use rewards::{REWARD_BOUNDS, RewardCounts, RewardHistory};
pub use score::ScoreService;
pub use settings::ServiceSettings;
pub use stats::{PhaseStats, ServiceStats, VersionStats};
pub use swap::{LoadVersion, Swap, SwapSettings, Swapped};

/// A future that can be sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Scores responses.
pub trait Scorer: Send + Sync + 'static {
    /// Scores one item. Dropping the future gives the item up.
    fn score<'a>(
        &'a self,
        caller: &'a Caller,
        request: ScoreRequest<Bytes>,
    ) -> BoxFuture<'a, Result<Scored, Failure>>;

    /// Opens an item whose response is still being generated. Within a tokio runtime.
    fn open<'a>(
        &'a self,
        caller: &'a Caller,
        context: Context<Bytes>,
    ) -> BoxFuture<'a, Result<OpenItem, Failure>>;

    /// The images that callers put.
    fn images(&self) -> &Arc<ImageStore>;

    /// Tokenises a text as a response is tokenised.
    fn tokenize(&self, text: &str) -> Result<Encoded, Failure>;

    /// The version that scores items that ask for none.
    fn model(&self) -> Arc<ModelCard>;

    /// The version that scores items that ask for this adapter; empty is none.
    fn model_of(&self, adapter: &str) -> Option<Arc<ModelCard>> {
        let card = self.model();
        (adapter.is_empty() || card.adapter.as_deref() == Some(adapter)).then_some(card)
    }

    /// The use case "correct", where it is offered.
    fn corrections(&self) -> Option<&Arc<Corrections>> {
        None
    }
}
