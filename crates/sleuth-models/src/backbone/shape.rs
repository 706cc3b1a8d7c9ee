use std::ops::AddAssign;
use std::time::Duration;

use super::work::{Behind, Suffix, Work};
use super::{Continued, Prefilled};

/// What a pass is made of, as far as its cost goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassShape {
    /// Images that are seen.
    pub images: usize,
    /// Rows of each new prefix.
    pub prefixes: Vec<usize>,
    /// Every response.
    pub suffixes: Vec<SuffixShape>,
}

/// A response of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuffixShape {
    /// Rows of its prefix.
    pub prefix: usize,
    /// Its tokens before this pass.
    pub past: usize,
    /// Its tokens in this pass.
    pub rows: usize,
    /// Whether its keys and values are kept.
    pub kept: bool,
}

/// Multiplications and additions of a pass, in 1e9.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PassCost {
    /// Products with the decoder's and the projector's weights.
    pub linear: f64,
    /// Queries times keys and weights times values, in the decoder.
    pub attention: f64,
    /// The vision tower.
    pub vision: f64,
}

/// Where the time of decoder passes went.
///
/// Prefixes and responses take turns in one packed pass, block by block: the pass's time is shared
/// out by the time that threads spent on each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassTimes {
    /// Rows of new prefixes.
    pub prefixes: Duration,
    /// Rows of responses, of whole sequences too where everything sees everything.
    pub responses: Duration,
    /// The final norm and the head.
    pub head: Duration,
}

// === impl PassShape ===

impl PassShape {
    /// The shape of `work`; `images` are seen beside it.
    pub fn of<F, P: Prefilled, S: Continued<P>>(
        work: &Work<'_, F, P, S>,
        images: usize,
        image_tokens: usize,
    ) -> Self {
        let prefixes: Vec<usize> =
            work.prefixes.iter().map(|p| image_tokens + p.prompt.len()).collect();
        let behind = |behind: &Behind<'_, P>| match behind {
            Behind::New(at) => prefixes[*at],
            Behind::Cached(kv) => kv.rows(),
        };
        let suffixes = work
            .suffixes
            .iter()
            .map(|suffix| {
                let (prefix, past, kept) = match suffix {
                    Suffix::Whole { prefix, .. } => (behind(prefix), 0, false),
                    Suffix::First { prefix, .. } => (behind(prefix), 0, true),
                    Suffix::Next { so_far, .. } => (so_far.prefix().rows(), so_far.rows(), true),
                };
                SuffixShape { prefix, past, rows: suffix.tokens().len(), kept }
            })
            .collect();
        Self { images, prefixes, suffixes }
    }

    /// Packed rows of the decoder.
    pub fn rows(&self) -> usize {
        self.prefixes.iter().sum::<usize>() + self.suffixes.iter().map(|s| s.rows).sum::<usize>()
    }
}

// === impl PassCost ===

impl PassCost {
    /// All of it.
    pub fn total(self) -> f64 {
        self.linear + self.attention + self.vision
    }
}

// === impl PassTimes ===

impl AddAssign for PassTimes {
    fn add_assign(&mut self, other: Self) {
        self.prefixes += other.prefixes;
        self.responses += other.responses;
        self.head += other.head;
    }
}
