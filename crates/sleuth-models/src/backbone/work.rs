use std::sync::Arc;

use crate::cpu::{ImageFeatures, PrefixKv, SuffixKv};

/// Where a response's prefix comes from.
#[derive(Debug)]
pub enum Behind<'a, P = PrefixKv> {
    /// The prefix with this place in [`Work::prefixes`].
    New(usize),
    /// A prefix computed before.
    Cached(&'a Arc<P>),
}

/// An image and a prompt whose keys and values are wanted.
#[derive(Debug)]
pub struct NewPrefix<'a, F = ImageFeatures> {
    /// The image.
    pub features: &'a F,
    /// `<bos>`, prompt, newline.
    pub prompt: &'a [u32],
}

/// Tokens of one response that are to be scored.
#[derive(Debug)]
pub enum Suffix<'a, P = PrefixKv, S = SuffixKv> {
    /// A whole response; nothing is kept of it.
    Whole {
        /// Its prefix.
        prefix: Behind<'a, P>,
        /// Its tokens; none is fine.
        tokens: &'a [u32],
    },
    /// The first tokens of a response that goes on; its keys and values are kept.
    First {
        /// Its prefix.
        prefix: Behind<'a, P>,
        /// Its first tokens; none is fine.
        tokens: &'a [u32],
    },
    /// The next tokens of a response that goes on.
    Next {
        /// What was kept before.
        so_far: S,
        /// The tokens after those.
        tokens: &'a [u32],
    },
}

/// One pass: prefixes that are computed, and responses that are scored.
#[derive(Debug)]
pub struct Work<'a, F = ImageFeatures, P = PrefixKv, S = SuffixKv> {
    /// New prefixes, each once.
    pub prefixes: Vec<NewPrefix<'a, F>>,
    /// Responses behind new or cached prefixes.
    pub suffixes: Vec<Suffix<'a, P, S>>,
}

/// What a pass gives.
#[derive(Debug)]
pub struct Done<P = PrefixKv, S = SuffixKv> {
    /// A logit for each token of each suffix.
    pub logits: Vec<Vec<f32>>,
    /// Keys and values of the new prefixes.
    pub prefixes: Vec<Arc<P>>,
    /// For each suffix that goes on, what was kept.
    pub suffixes: Vec<Option<S>>,
}

// === impl Behind ===

impl<P> Clone for Behind<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Behind<'_, P> {}

// === impl NewPrefix ===

impl<F> Clone for NewPrefix<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for NewPrefix<'_, F> {}

// === impl Work ===

impl<F, P, S> Default for Work<'_, F, P, S> {
    fn default() -> Self {
        Self { prefixes: Vec::new(), suffixes: Vec::new() }
    }
}

// === impl Suffix ===

impl<'a, P, S> Suffix<'a, P, S> {
    /// The tokens to be scored.
    pub fn tokens(&self) -> &'a [u32] {
        match self {
            Self::Whole { tokens, .. } | Self::First { tokens, .. } | Self::Next { tokens, .. } => {
                tokens
            }
        }
    }
}
