//! What a worker needs of a backbone with a reward head, whatever its architecture and device.

mod folder;
mod shape;
mod work;

use std::fmt::Debug;
use std::sync::Arc;

use sleuth_core::Pixels;

pub use self::folder::BackboneFolder;
pub use self::shape::{PassCost, PassShape, PassTimes, SuffixShape};
pub use self::work::{Behind, Done, NewPrefix, Suffix, Work};
use crate::{LoadError, SuffixAttention};

/// A backbone with a reward head on one device, shared by the workers of that device.
///
/// An image gives `Features`, an image with a prompt gives a `Prefix`, and a response that goes on
/// leaves a `Suffix`. The first two are immutable and shared; all are held as long as somebody
/// has use for them.
pub trait Backbone: Debug + Send + Sync + Sized + 'static {
    /// What depends on an image alone.
    type Features: Debug + Held + Sync;
    /// Keys and values of an image and a prompt.
    type Prefix: Debug + Prefilled + Sync;
    /// Keys and values of a response that goes on, and its prefix.
    type Suffix: Debug + Continued<Self::Prefix>;
    /// One worker's threads or stream, and its memory. Any pass may use any.
    type Space: Debug + Send + 'static;

    /// What is fixed when it has loaded.
    fn facts(&self) -> BackboneFacts;

    /// Whether an image and a prompt can be computed with: those that the model's own preprocessor
    /// and tokenizer make can. Who checks each item first loses no others by one that is malformed.
    fn check(&self, _pixels: &Pixels, _prompt: &[u32]) -> Result<(), PassError> {
        Ok(())
    }

    /// What there is to know of each image. All are as the model's preprocessor makes them.
    fn see(
        &self,
        space: &mut Self::Space,
        images: &[&Pixels],
    ) -> Result<Vec<Self::Features>, PassError>;

    /// Computes prefixes and scores responses in one packed pass. Token ids are below the
    /// vocabulary's size. Only for models with [`SuffixAttention::Causal`].
    fn score(
        &self,
        space: &mut Self::Space,
        work: Work<'_, Self::Features, Self::Prefix, Self::Suffix>,
    ) -> Result<Done<Self::Prefix, Self::Suffix>, PassError>;

    /// Logits of whole responses where everything sees everything; each is a sequence of its own.
    fn score_full(
        &self,
        space: &mut Self::Space,
        sequences: &[(NewPrefix<'_, Self::Features>, &[u32])],
    ) -> Result<Vec<Vec<f32>>, PassError>;

    /// The same keys and values where this backbone's passes read them: a copy where they lie on
    /// another device.
    fn bring_prefix(&self, held: &Arc<Self::Prefix>) -> Result<Arc<Self::Prefix>, PassError> {
        Ok(Arc::clone(held))
    }

    /// As [`Self::bring_prefix`], of an image.
    fn bring_features(&self, held: &Arc<Self::Features>) -> Result<Arc<Self::Features>, PassError> {
        Ok(Arc::clone(held))
    }

    /// Whether this backbone's passes can read what was kept of a response.
    fn can_read(&self, _kept: &Self::Suffix) -> bool {
        true
    }

    /// As [`Self::bring_prefix`], of a response that goes on; `prefix` is its own, brought already.
    fn bring_suffix(
        &self,
        kept: Self::Suffix,
        _prefix: Arc<Self::Prefix>,
    ) -> Result<Self::Suffix, PassError> {
        Ok(kept)
    }

    /// What the algorithm needs for a pass.
    fn cost(&self, shape: &PassShape) -> PassCost;

    /// Where the time of the passes since the last call went.
    fn take_times(space: &mut Self::Space) -> PassTimes;

    /// Bytes that `space` holds for later passes.
    fn space_bytes(space: &Self::Space) -> u64;
}

/// What is held on a device.
pub trait Held: Send + 'static {
    /// Bytes of it.
    fn bytes(&self) -> u64;
}

/// Keys and values of a prefix.
pub trait Prefilled: Held {
    /// Rows: image tokens and prompt tokens.
    fn rows(&self) -> usize;
}

/// What is kept of a response between its appends; without its prefix, which is shared.
pub trait Continued<P>: Held {
    /// What it stands behind.
    fn prefix(&self) -> &Arc<P>;
    /// Its tokens so far.
    fn rows(&self) -> usize;
}

/// What is fixed of a backbone that has loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackboneFacts {
    /// Where it is, such as `cpu`.
    pub device: &'static str,
    /// Rows of an image in a prefix.
    pub image_tokens: usize,
    /// What response tokens may attend to.
    pub attention: SuffixAttention,
    /// Whether rewards' bits depend on image, prompt and response alone.
    pub batch_invariant: bool,
    /// Rows that memory for keys and values is taken for at a time.
    pub kv_page_rows: usize,
    /// Bytes of the keys and values of so many rows, in all layers.
    pub kv_page_bytes: u64,
    /// Decoder layers.
    pub layers: usize,
    /// Bytes of weights.
    pub weight_bytes: u64,
}

/// Why a pass gave nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// The arithmetic failed.
    #[error(transparent)]
    Failed(#[from] LoadError),
    /// Pixels are no canvas that the model has: preprocessor and model do not belong together.
    #[error("an image of {height} by {width} pixels is no canvas of tiles of {tile} pixels")]
    Canvas {
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// Side of the model's tiles.
        tile: usize,
    },
    /// A prompt has no place for its image, or several.
    #[error("a prompt holds the image {found} times; it must hold it once")]
    ImagePlaces {
        /// How often.
        found: usize,
    },
    /// The model is causal throughout.
    #[error("`suffix_attention: full` is not offered for this model: its decoder is causal")]
    FullAttention,
    /// The device has no memory left for this pass. Less of it, or less held, may fit.
    #[error("the device is out of memory")]
    OutOfMemory,
    /// The device is gone: nothing that is on it can be read again.
    #[error("the device is lost: {0}")]
    DeviceLost(String),
}
