//! A scripted model, for tests of the engine and of what stands on it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use sleuth_core::Prepared;

use crate::{ModelFailure, RewardModel};

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
    pub fn builder(self) -> impl FnOnce() -> Result<Self, Infallible> + Send + 'static {
        move || Ok(self)
    }
}

impl RewardModel for FakeModel {
    #[expect(clippy::panic, reason = "the script asks for a panic")]
    fn score(&mut self, batch: &[Prepared]) -> Vec<Result<Vec<f32>, ModelFailure>> {
        self.remote.enter(batch);
        let scores = || batch.iter().map(|item| Ok(logits(item)));
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
            Act::Give(logits) => batch.iter().map(|_| Ok(logits.clone())).collect(),
            Act::Nothing => Vec::new(),
        }
    }

    fn image_tokens(&self) -> usize {
        IMAGE_TOKENS
    }

    fn batch_invariant(&self) -> bool {
        true
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

    fn enter(&self, batch: &[Prepared]) {
        let mut shared = self.lock();
        shared.batches.push(batch.to_vec());
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

fn logits(item: &Prepared) -> Vec<f32> {
    item.response.iter().map(|&id| logit(id)).collect()
}
