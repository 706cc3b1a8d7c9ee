use serde::Serialize;
use sleuth_core::{
    ByteSpan, Change, CorrectEvent, Corrected, Correction, ModelCard, Proposal, Proposed, Rescored,
    Scored,
};

use super::{Error, Model, Span, slice};

/// A corrected response, as `sleuth correct --format json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct CorrectedItem<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    response: &'a str,
    kept: u32,
    rounds: u32,
    reward_before: f32,
    reward: f32,
    aggregation: &'static str,
    changes: Vec<ChangeItem<'a>>,
    words: Vec<Piece<'a>>,
    attempts: Vec<AttemptItem<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guidance: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<Error<'a>>,
    model: Model<'a>,
}

/// A repair and what became of it.
#[derive(Debug, Serialize)]
pub(crate) struct AttemptItem<'a> {
    pub(crate) round: u32,
    pub(crate) candidate: u32,
    pub(crate) response: &'a str,
    pub(crate) reward: Option<f32>,
    pub(crate) flagged_tokens: Option<u32>,
    pub(crate) kept: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dropped: Option<&'static str>,
}

/// What happened, as `--events` prints it.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum EventItem<'a> {
    Scored {
        reward: f32,
        tokens: usize,
        flagged: Vec<Span>,
        words: Vec<Piece<'a>>,
    },
    Proposal {
        round: u32,
        candidate: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        response: Option<&'a str>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        replaced: Vec<Span>,
        #[serde(skip_serializing_if = "Option::is_none")]
        guidance: Option<&'a str>,
    },
    Rescored {
        round: u32,
        candidate: u32,
        reward: Option<f32>,
        kept: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        dropped: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Error<'a>>,
    },
}

#[derive(Debug, Serialize)]
struct ChangeItem<'a> {
    before: Piece<'a>,
    after: Piece<'a>,
}

/// A piece of a response.
#[derive(Debug, Serialize)]
pub(crate) struct Piece<'a> {
    start: u32,
    end: u32,
    text: &'a str,
}

// === impl CorrectedItem ===

impl<'a> CorrectedItem<'a> {
    /// `original` is the response as it came, `events` all that happened.
    pub(crate) fn new(
        id: Option<&'a str>,
        original: &'a str,
        corrected: &'a Corrected,
        correction: &'a Correction,
        events: &'a [CorrectEvent],
        card: &'a ModelCard,
    ) -> Self {
        let Corrected { response, scored, reward_before, changes, kept, stopped } = corrected;
        Self {
            id,
            response,
            kept: *kept,
            rounds: correction.rounds,
            reward_before: *reward_before,
            reward: scored.reward,
            aggregation: scored.aggregation.name(),
            changes: changes
                .iter()
                .map(|change| ChangeItem::new(change, original, response))
                .collect(),
            words: events.iter().flat_map(|event| words(event, original)).collect(),
            attempts: AttemptItem::all(correction, events),
            guidance: events.iter().find_map(guidance),
            stopped: stopped.as_ref().map(Error::from),
            model: Model { name: &card.name, version: &scored.version },
        }
    }
}

// === impl AttemptItem ===

impl<'a> AttemptItem<'a> {
    /// Every repair, in order.
    pub(crate) fn all(correction: &Correction, events: &'a [CorrectEvent]) -> Vec<Self> {
        let attempt = |attempt: &sleuth_core::Attempt| Self {
            round: attempt.round,
            candidate: attempt.candidate,
            response: proposed(events, attempt.round, attempt.candidate),
            reward: attempt.reward,
            flagged_tokens: attempt.flagged_tokens,
            kept: attempt.dropped.is_none(),
            dropped: attempt.dropped.map(sleuth_core::DropReason::name),
        };
        correction.attempts.iter().map(attempt).collect()
    }
}

// === impl EventItem ===

impl<'a> EventItem<'a> {
    pub(crate) fn new(original: &'a str, event: &'a CorrectEvent) -> Self {
        let spans = |spans: &[ByteSpan]| spans.iter().map(|&span| span.into()).collect();
        match event {
            CorrectEvent::Scored { scored, .. } => Self::Scored {
                reward: scored.reward,
                tokens: scored.tokens.len(),
                flagged: spans(&scored.flagged),
                words: words(event, original),
            },
            CorrectEvent::Proposed(Proposed { round, candidate, proposal }) => {
                let (response, replaced, guidance) = match proposal {
                    Proposal::Repair { response, replaced } => {
                        (Some(response.as_str()), spans(replaced), None)
                    }
                    Proposal::Guidance(prompt) => (None, Vec::new(), Some(prompt.as_str())),
                };
                let (round, candidate) = (*round, *candidate);
                Self::Proposal { round, candidate, response, replaced, guidance }
            }
            CorrectEvent::Rescored(rescored) => {
                let Rescored { round, candidate, scored, failure, dropped } = rescored;
                Self::Rescored {
                    round: *round,
                    candidate: *candidate,
                    reward: scored.as_deref().map(|scored: &Scored| scored.reward),
                    kept: dropped.is_none(),
                    dropped: dropped.map(sleuth_core::DropReason::name),
                    error: failure.as_ref().map(Error::from),
                }
            }
        }
    }
}

// === impl ChangeItem ===

impl<'a> ChangeItem<'a> {
    fn new(change: &Change, original: &'a str, response: &'a str) -> Self {
        let Change { before, after } = *change;
        Self { before: Piece::new(original, before), after: Piece::new(response, after) }
    }
}

// === impl Piece ===

impl<'a> Piece<'a> {
    fn new(text: &'a str, span: ByteSpan) -> Self {
        Self { start: span.start(), end: span.end(), text: slice(text, span) }
    }
}

fn words<'a>(event: &CorrectEvent, original: &'a str) -> Vec<Piece<'a>> {
    match event {
        CorrectEvent::Scored { words, .. } => {
            words.iter().map(|&span| Piece::new(original, span)).collect()
        }
        CorrectEvent::Proposed(_) | CorrectEvent::Rescored(_) => Vec::new(),
    }
}

fn guidance(event: &CorrectEvent) -> Option<&str> {
    match event {
        CorrectEvent::Proposed(Proposed { proposal: Proposal::Guidance(prompt), .. }) => {
            Some(prompt)
        }
        _ => None,
    }
}

fn proposed(events: &[CorrectEvent], round: u32, candidate: u32) -> &str {
    let of = |event| match event {
        &CorrectEvent::Proposed(Proposed {
            round: r,
            candidate: c,
            proposal: Proposal::Repair { ref response, .. },
        }) if (r, c) == (round, candidate) => Some(response.as_str()),
        _ => None,
    };
    events.iter().find_map(of).unwrap_or_default()
}
