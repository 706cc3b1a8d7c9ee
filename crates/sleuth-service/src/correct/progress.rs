use std::collections::HashSet;
use std::sync::Arc;

use sleuth_core::{
    Attempt, Corrected, Correction, DropReason, Failure, Judged, KeepRule, Scored, changes,
    flagged_words,
};

/// A response and its rewards.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) text: String,
    pub(super) scored: Scored,
}

/// How far an item has come. Changed between awaits only, so it is whole wherever work is dropped.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// As it came, and with the repairs kept so far.
    responses: Option<(Arc<Response>, Arc<Response>)>,
    /// Digests of what was proposed for the current response.
    seen: HashSet<[u8; 32]>,
    pub(super) rounds: u32,
    kept: u32,
    attempts: Vec<Attempt>,
}

/// A repair on its way to a verdict.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) number: u32,
    pub(super) text: String,
    pub(super) result: Option<Result<Scored, Failure>>,
    pub(super) dropped: Option<DropReason>,
}

// === impl Response ===

impl Response {
    pub(super) fn judged(&self) -> Judged<'_> {
        Judged { text: &self.text, tokens: &self.scored.tokens }
    }

    pub(super) fn is_flagged(&self) -> bool {
        !flagged_words(&self.text, &self.scored.flagged).is_empty()
    }
}

// === impl Progress ===

impl Progress {
    pub(super) fn begin(&mut self, text: String, scored: Scored) -> Arc<Response> {
        let response = Arc::new(Response { text, scored });
        self.responses = Some((Arc::clone(&response), Arc::clone(&response)));
        response
    }

    /// The response as it came, and with the repairs kept so far.
    pub(super) fn responses(&self) -> Option<(Arc<Response>, Arc<Response>)> {
        self.responses.clone()
    }

    /// Whether a text was not proposed yet for the current response.
    pub(super) fn is_new(&mut self, text: &str) -> bool {
        self.seen.insert(*blake3::hash(text.as_bytes()).as_bytes())
    }

    /// Takes note of a round, and of the repair that it kept.
    pub(super) fn settle(&mut self, round: u32, candidates: &[Candidate], rule: KeepRule) {
        for candidate in candidates {
            let scored = candidate.result.as_ref().and_then(|result| result.as_ref().ok());
            let flagged = scored.map(|scored| rule.flagged_tokens(&scored.tokens));
            self.attempts.push(Attempt {
                round,
                candidate: candidate.number,
                reward: scored.map(|scored| scored.reward),
                flagged_tokens: flagged.map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
                dropped: candidate.dropped,
            });
            if let (None, Some(scored)) = (candidate.dropped, scored)
                && let Some((_, current)) = &mut self.responses
            {
                let (text, scored) = (candidate.text.clone(), scored.clone());
                *current = Arc::new(Response { text, scored });
                self.kept += 1;
                self.seen.clear();
            }
        }
    }

    /// The end of an item, where nobody gave it up.
    pub(super) fn end(self, stopped: Option<Failure>) -> Correction {
        let Self { responses, rounds, kept, attempts, .. } = self;
        let outcome = match (responses, stopped) {
            (Some((original, current)), stopped) => Ok(Corrected {
                changes: changes(&original.text, &current.text),
                reward_before: original.scored.reward,
                response: current.text.clone(),
                scored: current.scored.clone(),
                kept,
                stopped,
            }),
            (None, Some(failure)) => Err(failure),
            (None, None) => Err(crate::failures::worker_failed()),
        };
        Correction { outcome, rounds, attempts }
    }

    /// The end of an item that its caller gave up.
    pub(super) fn given_up(self, failure: Failure) -> Correction {
        Correction { outcome: Err(failure), rounds: self.rounds, attempts: self.attempts }
    }
}

// === impl Candidate ===

impl Candidate {
    pub(super) fn new(number: usize, text: String) -> Self {
        Self {
            number: u32::try_from(number).unwrap_or(u32::MAX),
            text,
            result: None,
            dropped: None,
        }
    }
}

/// What a repair may not be, whatever its rewards: measured by what it replaces, and by the response
/// as it came, so that rounds do not wear a text away.
pub(super) fn admit(
    candidates: &mut [Candidate],
    rule: KeepRule,
    original: &Response,
    current: &Response,
) {
    for candidate in candidates {
        let admitted = rule
            .admits(current.judged(), &candidate.text)
            .and_then(|()| rule.admits(original.judged(), &candidate.text));
        candidate.dropped = admitted.err();
    }
}

/// Keeps the best of a round: of those that the rule admits, the one with the highest reward, the
/// first of equals.
pub(super) fn choose(candidates: &mut [Candidate], rule: KeepRule, current: &Response) {
    let mut best: Option<(usize, f32)> = None;
    for at in 0..candidates.len() {
        let candidate = &mut candidates[at];
        let verdict = match (&candidate.result, candidate.dropped) {
            (_, Some(reason)) => Err(reason),
            (Some(Ok(scored)), None) => {
                let repaired = Judged { text: &candidate.text, tokens: &scored.tokens };
                rule.judge(current.judged(), repaired)
            }
            (Some(Err(_)) | None, None) => Err(DropReason::Unscored),
        };
        match verdict {
            Err(reason) => candidate.dropped = Some(reason),
            Ok(reward) => match best {
                Some((_, most)) if most >= reward => {
                    candidate.dropped = Some(DropReason::OtherBetter);
                }
                _ => {
                    if let Some((before, _)) = best.replace((at, reward)) {
                        candidates[before].dropped = Some(DropReason::OtherBetter);
                    }
                }
            },
        }
    }
}
