//! A scripted model, for tests of the engine and of what stands on it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use sleuth_core::Prepared;

use crate::{
    CacheStats, ItemShape, KvCost, ModelFacts, ModelFailure, Outcome, Part, Prefixes, Reuse,
    RewardModel, Task, Work,
};

/// What the model does with one batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Gives each token the logit of [`logit`].
    Score,
    /// Sleeps, and then scores.
    ScoreAfter(Duration),
    /// Panics.
    Panic,
    /// Fails the items at these places of the batch, and scores the others.
    Fail(Vec<(usize, ModelFailure)>),
    /// Fails all items.
    FailAll(ModelFailure),
    /// Gives these logits for every item, whatever its length.
    Give(Vec<f32>),
    /// Gives no results at all.
    Nothing,
}

/// A model without weights. After its script it scores.
#[derive(Debug, Default)]
pub struct FakeModel {
    script: VecDeque<Act>,
    remote: Remote,
}

/// What a [`FakeModel`] keeps of an item: its tokens so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FakeKept(pub Vec<u32>);

/// Caches that hold nothing.
#[derive(Debug)]
struct NoPrefixes;

/// Watches a [`FakeModel`] that an engine owns, and holds its batches back.
#[derive(Clone, Debug, Default)]
pub struct Remote {
    shared: Arc<(Mutex<Shared>, Condvar)>,
}

#[derive(Debug, Default)]
struct Shared {
    gated: bool,
    /// Batches that may pass the gate.
    passes: usize,
    batches: Vec<Vec<Prepared>>,
}

/// Rows of the fake image part of a prefix.
pub const IMAGE_TOKENS: usize = 4;
/// Bytes that are kept for a token of an item being generated.
pub const KEPT_BYTES: u64 = 8;

/// The logit that a fake model gives a token: a function of its id, between -2 and 2.
pub fn logit(id: u32) -> f32 {
    (id % 9) as f32 / 2.0 - 2.0
}

// === impl FakeModel ===

impl FakeModel {
    /// A model that does what the script says, a batch an act, and its remote.
    pub fn new(script: impl IntoIterator<Item = Act>) -> (Self, Remote) {
        let model = Self { script: script.into_iter().collect(), remote: Remote::default() };
        let remote = model.remote.clone();
        (model, remote)
    }

    /// As the engine takes it.
    pub fn builder(self) -> impl FnOnce() -> Result<Vec<Self>, Infallible> + Send + 'static {
        move || Ok(vec![self])
    }

    /// A worker for each script, with one remote.
    pub fn scripted_pool(
        scripts: Vec<Vec<Act>>,
    ) -> (impl FnOnce() -> Result<Vec<Self>, Infallible> + Send + 'static, Remote) {
        let remote = Remote::default();
        let own = remote.clone();
        let worker = move |script: Vec<Act>| Self { script: script.into(), remote: own.clone() };
        (move || Ok(scripts.into_iter().map(worker).collect()), remote)
    }

    /// `workers` workers with one remote and no script.
    pub fn pool(
        workers: usize,
    ) -> (impl FnOnce() -> Result<Vec<Self>, Infallible> + Send + 'static, Remote) {
        let remote = Remote::default();
        let own = remote.clone();
        let worker = move || Self { script: VecDeque::new(), remote: own.clone() };
        (move || Ok((0..workers).map(|_| worker()).collect()), remote)
    }
}

impl RewardModel for FakeModel {
    type Kept = FakeKept;

    #[expect(clippy::panic, reason = "the script asks for a panic")]
    fn score(
        &mut self,
        batch: Vec<Task<FakeKept>>,
    ) -> Vec<Result<Outcome<FakeKept>, ModelFailure>> {
        self.remote.enter(&batch);
        let outcome = |logits| Outcome { logits, kept: None, reuse: Reuse::default() };
        let scores = || batch.iter().map(|task| Ok(scored(task)));
        match self.script.pop_front().unwrap_or(Act::Score) {
            Act::Score => scores().collect(),
            Act::ScoreAfter(delay) => {
                thread::sleep(delay);
                scores().collect()
            }
            Act::Panic => panic!("scripted"),
            Act::Fail(failures) => {
                let mut results: Vec<_> = scores().collect();
                for (at, failure) in failures {
                    results[at] = Err(failure);
                }
                results
            }
            Act::FailAll(failure) => batch.iter().map(|_| Err(failure.clone())).collect(),
            Act::Give(logits) => batch.iter().map(|_| Ok(outcome(logits.clone()))).collect(),
            Act::Nothing => Vec::new(),
        }
    }

    fn facts(&self) -> ModelFacts {
        ModelFacts {
            image_tokens: IMAGE_TOKENS,
            batch_invariant: true,
            incremental: true,
            kv: KvCost { page_rows: 1, row_bytes: KEPT_BYTES, layers: 1 },
            gflop_per_second: 1.0,
            prefixes: Arc::new(NoPrefixes),
        }
    }

    fn work(&self, batch: &[Task<FakeKept>]) -> Work {
        let tokens: usize = batch.iter().map(|task| task.prepared.response.len()).sum();
        Work { linear: tokens as f64, ..Work::default() }
    }

    fn kept_bytes(kept: &FakeKept) -> u64 {
        kept.0.len() as u64 * KEPT_BYTES
    }
}

impl Prefixes for NoPrefixes {
    fn item_work(&self, shape: &ItemShape) -> Work {
        Work { linear: shape.tokens as f64, ..Work::default() }
    }

    fn prefix_work(&self, _: &[u8; 32], _: usize) -> Work {
        Work::default()
    }

    fn is_resident(&self, _: &[u8; 32], _: &Arc<[u32]>) -> bool {
        false
    }

    fn prefix_stats(&self) -> CacheStats {
        CacheStats::default()
    }

    fn vision_stats(&self) -> CacheStats {
        CacheStats::default()
    }
}

// === impl Remote ===

impl Remote {
    /// Holds batches back from now on.
    pub fn close_gate(&self) {
        self.lock().gated = true;
    }

    /// Lets `batches` held batches pass.
    pub fn let_pass(&self, batches: usize) {
        self.lock().passes += batches;
        self.shared.1.notify_all();
    }

    /// Holds nothing back any more.
    pub fn open_gate(&self) {
        self.lock().gated = false;
        self.shared.1.notify_all();
    }

    /// The batches that have begun, held ones included.
    pub fn batches(&self) -> Vec<Vec<Prepared>> {
        self.lock().batches.clone()
    }

    /// Blocks the calling thread until that many batches have begun; for the blocking pool.
    pub fn wait_for_batches(&self, count: usize) {
        let mut shared = self.lock();
        while shared.batches.len() < count {
            shared = self.shared.1.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn enter(&self, batch: &[Task<FakeKept>]) {
        let mut shared = self.lock();
        shared.batches.push(batch.iter().map(|task| task.prepared.clone()).collect());
        self.shared.1.notify_all();
        while shared.gated && shared.passes == 0 {
            shared = self.shared.1.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
        shared.passes = shared.passes.saturating_sub(1);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is kept is what came before and the task's own tokens, whatever was asked for.
fn scored(task: &Task<FakeKept>) -> Outcome<FakeKept> {
    let own = &task.prepared.response;
    let kept = match &task.part {
        Part::Whole => None,
        Part::First => Some(FakeKept(own.to_vec())),
        Part::Next(FakeKept(before)) => Some(FakeKept([before, &**own].concat())),
    };
    let logits = own.iter().map(|&id| logit(id)).collect();
    Outcome { logits, kept, reuse: Reuse::default() }
}
