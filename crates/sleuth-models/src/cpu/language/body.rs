//! The parts of a language model that differ between architectures.

use std::sync::Arc;

use sleuth_core::Pixels;

use crate::LoadError;
use crate::backbone::PassError;
use crate::cpu::kv::{ImageKv, PrefixKv};
use crate::cpu::pass::{Decoder, Pass};
use crate::cpu::workspace::Workspace;
use crate::cpu::{CpuModel, Done, ImageFeatures, MllamaCpu, NewPrefix, Suffix, Work};

/// A model without its language head. It has no reward head either.
#[derive(Debug)]
pub(super) enum Body {
    PaliGemma(Box<CpuModel>),
    Mllama(Box<MllamaCpu>),
}

/// What a language model knows of an image: all that depends on it alone.
#[derive(Debug)]
pub struct LanguageFeatures(Seen);

#[derive(Debug)]
enum Seen {
    PaliGemma(ImageFeatures),
    Mllama(ImageKv),
}

// === impl Body ===

impl Body {
    pub(super) fn hidden(&self) -> usize {
        match self {
            Self::PaliGemma(model) => model.widths().hidden,
            Self::Mllama(model) => model.widths().hidden,
        }
    }

    pub(super) fn weight_bytes(&self) -> u64 {
        match self {
            Self::PaliGemma(model) => model.weight_bytes(),
            Self::Mllama(model) => model.weight_bytes(),
        }
    }

    pub(super) fn see(
        &self,
        space: &mut Workspace,
        pixels: &Pixels,
    ) -> Result<LanguageFeatures, PassError> {
        let seen = match self {
            Self::PaliGemma(model) => model.see(space, &[pixels]).pop().map(Seen::PaliGemma),
            Self::Mllama(model) => model.see(space, &[pixels])?.pop().map(Seen::Mllama),
        };
        // As many come as went in.
        Ok(LanguageFeatures(seen.ok_or(LoadError::Incomplete)?))
    }

    /// A prefix's keys and values, and the state of its last row.
    pub(super) fn prefill(
        &self,
        space: &mut Workspace,
        prefix: NewPrefix<'_, LanguageFeatures>,
    ) -> Result<(Arc<PrefixKv>, Vec<f32>), PassError> {
        let prompt = prefix.prompt;
        let mut done = match (self, &prefix.features.0) {
            (Self::PaliGemma(model), Seen::PaliGemma(features)) => {
                Pass::prefill(&**model, NewPrefix { features, prompt }).run_states(space)?
            }
            (Self::Mllama(model), Seen::Mllama(features)) => {
                model.check_prompt(prompt)?;
                Pass::prefill(&**model, NewPrefix { features, prompt }).run_states(space)?
            }
            // An image that another model saw.
            _ => return Err(LoadError::Incomplete.into()),
        };
        match (done.prefixes.pop(), done.logits.pop()) {
            (Some(kv), Some(state)) => Ok((kv, state)),
            // One prefix went in, of which one row is read.
            _ => Err(LoadError::Incomplete.into()),
        }
    }

    pub(super) fn extend(
        &self,
        space: &mut Workspace,
        suffixes: Vec<Suffix<'_>>,
    ) -> Result<Done, LoadError> {
        match self {
            Self::PaliGemma(model) => {
                Pass::new(&**model, Work { prefixes: Vec::new(), suffixes }).run_states(space)
            }
            Self::Mllama(model) => {
                Pass::new(&**model, Work { prefixes: Vec::new(), suffixes }).run_states(space)
            }
        }
    }
}

// === impl LanguageFeatures ===

impl LanguageFeatures {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        match &self.0 {
            Seen::PaliGemma(features) => features.bytes(),
            Seen::Mllama(image) => image.bytes(),
        }
    }
}
