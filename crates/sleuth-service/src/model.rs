use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use sleuth_core::{Failure, ModelCard, TokenReward};
use sleuth_engine::Engine;

use crate::Prepare;
use crate::load::PrefixNames;
use crate::rewards::RewardHistory;
use crate::stats::VersionStats;
use crate::weighted::Weighted;

/// One version of a model: what it is, how its inputs are prepared, and the engine that runs it.
pub struct LoadedModel {
    card: Arc<ModelCard>,
    pub(crate) prepare: Arc<dyn Prepare>,
    pub(crate) engine: Engine,
    /// Tokens of prompts, which groups and training steps repeat.
    prompts: Mutex<Weighted<Arc<str>, Arc<[u32]>>>,
    rewards: Mutex<RewardHistory>,
    /// What routers call the prefixes that its items need.
    pub(crate) prefixes: PrefixNames,
}

/// Bytes of prompts whose tokens are kept.
const PROMPT_BYTES: u64 = 8 << 20;

// === impl LoadedModel ===

impl LoadedModel {
    /// Puts a version together. `card`, `prepare` and `engine` must be of the same model.
    pub fn new(card: ModelCard, prepare: impl Prepare, engine: Engine) -> Self {
        Self {
            card: Arc::new(card),
            prepare: Arc::new(prepare),
            engine,
            prompts: Mutex::new(Weighted::new(PROMPT_BYTES)),
            rewards: Mutex::default(),
            prefixes: PrefixNames::default(),
        }
    }

    /// What it is.
    pub fn card(&self) -> &Arc<ModelCard> {
        &self.card
    }

    /// Takes note of a response's rewards.
    pub(crate) fn count(&self, tokens: &[TokenReward]) {
        let mut rewards = self.rewards.lock().unwrap_or_else(PoisonError::into_inner);
        rewards.add(tokens, self.card.threshold);
    }

    /// What it did and holds.
    pub(crate) fn stats(&self) -> VersionStats {
        VersionStats {
            card: Arc::clone(&self.card),
            engine: self.engine.stats(),
            predicted_wait: self.engine.predicted_wait(),
            rewards: self.rewards.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// A prompt's tokens, if they are kept.
    pub(crate) fn kept_prompt(&self, text: &str) -> Option<Arc<[u32]>> {
        self.prompts.lock().unwrap_or_else(PoisonError::into_inner).get(text).cloned()
    }

    /// A prompt's tokens.
    pub(crate) fn prompt(&self, text: &str) -> Result<Arc<[u32]>, Failure> {
        if let Some(tokens) = self.kept_prompt(text) {
            return Ok(tokens);
        }
        let tokens = self.prepare.prompt(text)?;
        let bytes = text.len() as u64 + size_of_val(&*tokens) as u64;
        let mut prompts = self.prompts.lock().unwrap_or_else(PoisonError::into_inner);
        prompts.insert(Arc::from(text), Arc::clone(&tokens), bytes);
        Ok(tokens)
    }
}

impl fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedModel").field("version", &self.card.version).finish_non_exhaustive()
    }
}
