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
mod load;
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
use sleuth_core::{
    Context, CorrectEvent, CorrectRequest, Correction, Encoded, Failure, Load, ModelCard,
    PrefixChanges, ScoreRequest, Scored,
};
use tokio::sync::mpsc;

pub use admission::{AdmissionSettings, TenantLimits};
pub use caller::Caller;
pub use correct::{
    BuiltinCorrector, Correctable, Corrections, Corrector, Correctors, EncodedImage,
    EndpointCorrector, EndpointRefused, EndpointSettings, Repair, RepairRequest, Rescorer, Sight,
    guidance_prompt,
};
pub use images::{ImageStats, ImageStore, Put, Upload};
pub use load::Told;
pub use model::LoadedModel;
pub use once::{IdempotencySettings, IdempotencyStats};
pub use open::{Appended, Hold, OpenEvent, OpenItem, OpenSettings, Rewards};
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
    fn tokenize(&self, text: String) -> BoxFuture<'_, Result<Tokenized, Failure>>;

    /// The version that scores items that ask for this adapter; an empty name asks for none.
    fn model_of<'a>(&'a self, adapter: &'a str) -> BoxFuture<'a, Result<Arc<ModelCard>, Failure>>;

    /// The use case "correct", where it is offered.
    fn corrects(&self) -> Option<Arc<dyn Corrects>> {
        None
    }

    /// How much there is to do, for routers, where that is told.
    fn load(&self) -> Option<Load> {
        None
    }

    /// The prefixes that came and left since the last call with this `told`.
    fn prefix_changes(&self, _told: &mut Told) -> PrefixChanges {
        PrefixChanges::default()
    }
}

/// Corrects responses.
pub trait Corrects: Send + Sync + 'static {
    /// Corrects one item; see [`Corrections::correct`].
    fn correct<'a>(
        &'a self,
        caller: &'a Caller,
        request: CorrectRequest<Bytes>,
        cancelled: BoxFuture<'a, ()>,
        events: &'a mpsc::Sender<CorrectEvent>,
    ) -> BoxFuture<'a, Correction>;
}

/// A text's tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokenized {
    /// The tokens.
    pub encoded: Encoded,
    /// The version whose they are.
    pub version: String,
}
