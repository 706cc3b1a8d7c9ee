use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use sleuth_core::Pixels;
use tokio::sync::oneshot;
use tokio::time::Instant as TokioInstant;

use super::TokenSet;
use crate::EngineError;

/// What is to be written.
#[derive(Clone, Debug)]
pub struct Generate {
    /// The image, preprocessed.
    pub pixels: Pixels,
    /// Of the encoded image and its preprocessing.
    pub image_key: [u8; 32],
    /// `<bos>`, prompt, newline.
    pub prompt: Arc<[u32]>,
    /// Response tokens that stand already, before what is to be written.
    pub given: Arc<[u32]>,
    /// Sequences that are decoded in one batch, from one shared prefix and what is given.
    pub candidates: NonZeroUsize,
    /// Most tokens of each.
    pub max_tokens: NonZeroUsize,
    /// How a token is chosen.
    pub sampling: Sampling,
    /// What ends a candidate, and what it may hold.
    pub stop: Stop,
}

/// Continuations whose probability is asked for.
#[derive(Clone, Debug)]
pub struct Rate {
    /// The image, preprocessed.
    pub pixels: Pixels,
    /// Of the encoded image and its preprocessing.
    pub image_key: [u8; 32],
    /// `<bos>`, prompt, newline.
    pub prompt: Arc<[u32]>,
    /// Response tokens before every continuation.
    pub given: Arc<[u32]>,
    /// What comes after; empty ones are fine.
    pub continuations: Vec<Arc<[u32]>>,
}

/// How a token is chosen among those that [`Stop`] allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The likeliest. Every candidate is the same.
    Greedy,
    /// Candidate `i` begins with the `i`-th likeliest token and goes on with the likeliest.
    Branch,
    /// By probability; candidate `i` draws from a stream of its own, made of the seed and `i`.
    Random {
        /// Above 0; at or below, the likeliest is taken.
        temperature: f64,
        /// Only the likeliest tokens that together have this probability; after `top_k`.
        top_p: Option<f64>,
        /// Only so many of the likeliest.
        top_k: Option<NonZeroUsize>,
        /// Of the streams.
        seed: u64,
    },
}

/// What ends a candidate, and what it may hold.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Each ends a candidate and is no part of it; `<eos>` belongs here.
    pub tokens: Arc<[u32]>,
    /// So does each of these, such as all that hold a full stop.
    pub ends: Option<TokenSet>,
    /// The first token is one of these.
    pub first: Option<TokenSet>,
    /// Each later one is one of these, or ends the candidate.
    pub later: Option<TokenSet>,
    /// Ends a candidate by what it counts.
    pub units: Option<Units>,
}

/// A bound on units of text, such as words. A candidate ends before the token that begins one unit
/// too many; its first token begins the first.
#[derive(Clone, Debug)]
pub struct Units {
    /// Tokens that begin a unit.
    pub starts: TokenSet,
    /// Most units.
    pub most: NonZeroUsize,
}

// === impl Stop ===

impl Stop {
    /// Whether a token ends a candidate.
    pub(super) fn is_end(&self, token: u32) -> bool {
        self.tokens.contains(&token) || self.ends.as_ref().is_some_and(|ends| ends.contains(token))
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Without what ended it; may be none.
    pub tokens: Vec<u32>,
    /// Sum of the natural logarithms of the tokens' probabilities, among all tokens of the
    /// vocabulary and at temperature 1.
    pub log_probability: f32,
    /// Why it is no longer.
    pub ended: Ended,
}

/// Why a candidate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By a token or a bound of [`Stop`], or because none was allowed.
    Stop,
    /// It has as many tokens as were asked for.
    Length,
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

/// A request on its way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) pixels: Pixels,
    pub(super) image_key: [u8; 32],
    pub(super) prompt: Arc<[u32]>,
    pub(super) given: Arc<[u32]>,
    pub(super) wanted: Wanted,
    pub(super) deadline: Option<Instant>,
    pub(super) task: Task,
}

/// What a request will hold at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The image, and what it takes: once for all requests about it.
    pub(super) image: [u8; 32],
    pub(super) image_bytes: u64,
    pub(super) kv_bytes: u64,
    pub(super) candidates: usize,
}

#[derive(Debug)]
pub(super) enum Task {
    Generate {
        candidates: usize,
        max_tokens: usize,
        sampling: Sampling,
        stop: Stop,
        reply: Reply<Vec<Candidate>>,
    },
    Rate {
        continuations: Vec<Arc<[u32]>>,
        reply: Reply<Vec<Vec<f32>>>,
    },
}

// === impl Job ===

impl Job {
    pub(super) fn generate(
        request: Generate,
        wanted: Wanted,
        deadline: Option<TokioInstant>,
        reply: Reply<Vec<Candidate>>,
    ) -> Self {
        let Generate { pixels, image_key, prompt, given, candidates, max_tokens, sampling, stop } =
            request;
        let (candidates, max_tokens) = (candidates.get(), max_tokens.get());
        let task = Task::Generate { candidates, max_tokens, sampling, stop, reply };
        let deadline = deadline.map(TokioInstant::into_std);
        Self { pixels, image_key, prompt, given, wanted, deadline, task }
    }

    pub(super) fn rate(
        request: Rate,
        wanted: Wanted,
        deadline: Option<TokioInstant>,
        reply: Reply<Vec<Vec<f32>>>,
    ) -> Self {
        let Rate { pixels, image_key, prompt, given, continuations } = request;
        let task = Task::Rate { continuations, reply };
        let deadline = deadline.map(TokioInstant::into_std);
        Self { pixels, image_key, prompt, given, wanted, deadline, task }
    }
}

// === impl Task ===

impl Task {
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Generate { reply, .. } => reply.is_closed(),
            Self::Rate { reply, .. } => reply.is_closed(),
        }
    }

    /// Ends a request. A caller that is gone wants no answer.
    pub(super) fn fail(self, error: EngineError) {
        match self {
            Self::Generate { reply, .. } => drop(reply.send(Err(error))),
            Self::Rate { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}
