use std::fmt;
use std::sync::Arc;

use sleuth_core::Prepared;

use crate::{CacheStats, Memory, Phases, Work};

/// One worker's hands on a device: it owns threads and memory, and shares weights and caches with
/// the other workers of its pool. Owned by one thread.
pub trait RewardModel: Send + 'static {
    /// What is kept of an item between its appends.
    type Kept: Send + 'static;

    /// What the engine has to know beforehand. Equal for all workers of a pool.
    fn facts(&self) -> ModelFacts;

    /// What a batch will compute, as the caches are now.
    fn work(&self, batch: &[Task<Self::Kept>]) -> Work;

    /// Scores a batch: for each item one finite logit per token, in order.
    ///
    /// One item's failure does not touch the others. The result has as many entries as `batch`.
    fn score(
        &mut self,
        batch: Vec<Task<Self::Kept>>,
    ) -> Vec<Result<Outcome<Self::Kept>, ModelFailure>>;

    /// What another worker kept of an item, where this one can go on with it; `None` where the item
    /// has to be computed again. `prepared` has its image and prompt.
    fn take_over(&mut self, kept: Self::Kept, _prepared: &Prepared) -> Option<Self::Kept> {
        Some(kept)
    }

    /// Bytes that are held as long as `kept` is.
    fn kept_bytes(kept: &Self::Kept) -> u64;

    /// Gives up what is held on the device for later batches, as its memory is short.
    fn relieve(&mut self) {}

    /// Where the time of the last batch went, as far as that is known.
    fn take_phases(&mut self) -> Phases {
        Phases::default()
    }

    /// What is held for weights and buffers, as far as that is known.
    fn memory(&self) -> Memory {
        Memory::default()
    }
}

/// What is to be done for one item.
#[derive(Clone, Debug)]
pub struct Task<K> {
    /// Image, prompt, and the tokens to score: all of a whole item, those since `kept` of another.
    pub prepared: Prepared,
    /// What kind of item it is.
    pub part: Part<K>,
}

/// What part of a response a task's tokens are.
#[derive(Clone, Debug)]
pub enum Part<K> {
    /// All of it. Nothing is kept.
    Whole,
    /// The first of it; there may be none yet.
    First,
    /// The next of it, after what was kept.
    Next(K),
}

/// What a task gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<K> {
    /// A logit per token of the task.
    pub logits: Vec<f32>,
    /// Of an item that goes on.
    pub kept: Option<K>,
    /// What need not be computed for it.
    pub reuse: Reuse,
}

/// What was held already when an item ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reuse {
    /// Rows of the item's prefix.
    pub prefix_rows: usize,
    /// Whether their keys and values were held, or computed for another item of the batch.
    pub prefix: bool,
    /// Whether the vision tower's output was.
    pub vision: bool,
}

/// What an engine has to know of its model.
#[derive(Clone)]
pub struct ModelFacts {
    /// Rows of the image part of a prefix.
    pub image_tokens: usize,
    /// Whether the same bits come back whatever shares the batch.
    pub batch_invariant: bool,
    /// Whether items can be scored as they are generated.
    pub incremental: bool,
    /// What keys and values take.
    pub kv: KvCost,
    /// The rate to believe in before any batch was measured.
    pub gflop_per_second: f64,
    /// The prefixes that need not be computed.
    pub prefixes: Arc<dyn Prefixes>,
}

/// What keys and values take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvCost {
    /// Rows that memory is taken for at a time.
    pub page_rows: usize,
    /// Bytes of one row in all layers.
    pub row_bytes: u64,
    /// Layers, of which a whole response holds one at a time.
    pub layers: usize,
}

/// What an item adds to a batch, as far as its cost goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemShape {
    /// Tokens of its prompt, with `<bos>` and newline.
    pub prompt: usize,
    /// Tokens to score.
    pub tokens: usize,
    /// Tokens that were scored before.
    pub past: usize,
}

/// The caches that a pool's workers share, and what an item takes beside them.
pub trait Prefixes: Send + Sync {
    /// What an item's own rows take.
    fn item_work(&self, shape: &ItemShape) -> Work;
    /// What its prefix takes, with or without the vision tower.
    fn prefix_work(&self, image_key: &[u8; 32], prompt: usize) -> Work;
    /// Whether the keys and values of an image and a prompt are held.
    fn is_resident(&self, image_key: &[u8; 32], prompt: &Arc<[u32]>) -> bool;
    /// Of prefixes' keys and values.
    fn prefix_stats(&self) -> CacheStats;
    /// Of the vision tower's outputs.
    fn vision_stats(&self) -> CacheStats;
}

/// Why a model gave no logits for an item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelFailure {
    /// A logit was NaN or infinite.
    #[error("the model gave a value that is not a finite number")]
    NotFinite,
    /// The forward pass failed; for logs, not for callers.
    #[error("the forward pass failed: {0}")]
    Forward(String),
    /// The device had no memory left for the batch: a smaller one may do.
    #[error("the device is out of memory")]
    OutOfMemory,
    /// The device is gone, and this worker with it: the batch has to run on another one.
    #[error("the device is lost: {0}")]
    DeviceLost(String),
}

// === impl KvCost ===

impl KvCost {
    /// Bytes of the keys and values of `rows` rows that are kept.
    pub fn kept(self, rows: usize) -> u64 {
        self.row_bytes * rows.next_multiple_of(self.page_rows) as u64
    }

    /// Bytes of those of a whole response of `rows` rows.
    pub fn whole(self, rows: usize) -> u64 {
        self.kept(rows).div_ceil(self.layers as u64)
    }
}

// === impl ModelFacts ===

impl fmt::Debug for ModelFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelFacts")
            .field("image_tokens", &self.image_tokens)
            .field("batch_invariant", &self.batch_invariant)
            .field("incremental", &self.incremental)
            .field("kv", &self.kv)
            .finish_non_exhaustive()
    }
}
