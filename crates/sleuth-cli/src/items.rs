//! Items as the command line takes them, and results as it prints them.

mod correct;

use serde::{Deserialize, Serialize};
use sleuth_core::{ByteSpan, Failure, ModelCard, Scored, TokenReward};

pub(crate) use correct::{AttemptItem, CorrectedItem, EventItem};

/// A line of a JSONL input.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Line {
    pub(crate) id: String,
    pub(crate) image: String,
    #[serde(default)]
    pub(crate) prompt: Option<String>,
    pub(crate) response: String,
}

/// A scored item, as `--format json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct ScoredItem<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<&'a str>,
    pub(crate) tokens: Vec<Token<'a>>,
    pub(crate) sentences: Vec<Sentence>,
    pub(crate) response: Response,
    pub(crate) model: Model<'a>,
    pub(crate) timing_ms: Timing,
}

/// An item without rewards.
#[derive(Debug, Serialize)]
pub(crate) struct FailedItem<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<&'a str>,
    pub(crate) error: Error<'a>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) reward: f32,
    pub(crate) logit: f32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Sentence {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) reward: f32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Response {
    pub(crate) reward: f32,
    pub(crate) aggregation: &'static str,
    pub(crate) flagged: Vec<Span>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Model<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
}

#[derive(Debug, Serialize)]
pub(crate) struct Timing {
    pub(crate) prepare: f64,
    pub(crate) queue: f64,
    pub(crate) compute: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Error<'a> {
    pub(crate) class: &'static str,
    pub(crate) reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) field: Option<&'static str>,
    pub(crate) detail: &'a str,
}

// === impl ScoredItem ===

impl<'a> ScoredItem<'a> {
    /// `text` is the response that was scored.
    pub(crate) fn new(
        id: Option<&'a str>,
        text: &'a str,
        scored: &'a Scored,
        card: &'a ModelCard,
    ) -> Self {
        let milliseconds = |d: std::time::Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
        Self {
            id,
            tokens: scored.tokens.iter().map(|token| Token::new(token, text)).collect(),
            sentences: scored
                .sentences
                .iter()
                .map(|s| Sentence { start: s.span.start(), end: s.span.end(), reward: s.reward })
                .collect(),
            response: Response {
                reward: scored.reward,
                aggregation: scored.aggregation.name(),
                flagged: scored.flagged.iter().map(|&span| span.into()).collect(),
            },
            model: Model { name: &card.name, version: &scored.version },
            timing_ms: Timing {
                prepare: milliseconds(scored.timing.prepare),
                queue: milliseconds(scored.timing.queue),
                compute: milliseconds(scored.timing.compute),
            },
        }
    }
}

// === impl FailedItem ===

impl<'a> FailedItem<'a> {
    pub(crate) fn new(id: Option<&'a str>, failure: &'a Failure) -> Self {
        Self { id, error: failure.into() }
    }
}

// === impl Error ===

impl<'a> From<&'a Failure> for Error<'a> {
    fn from(failure: &'a Failure) -> Self {
        Self {
            class: failure.class.name(),
            reason: failure.reason.name(),
            field: failure.field,
            detail: &failure.detail,
        }
    }
}

// === impl Token ===

impl<'a> Token<'a> {
    fn new(token: &TokenReward, text: &'a str) -> Self {
        Self {
            text: slice(text, token.span),
            start: token.span.start(),
            end: token.span.end(),
            reward: token.reward,
            logit: token.logit,
        }
    }
}

// === impl Span ===

impl From<ByteSpan> for Span {
    fn from(span: ByteSpan) -> Self {
        Self { start: span.start(), end: span.end() }
    }
}

/// The text of a span; spans lie on character boundaries of the text they were made for.
pub(crate) fn slice(text: &str, span: ByteSpan) -> &str {
    text.get(span.range()).unwrap_or_default()
}
