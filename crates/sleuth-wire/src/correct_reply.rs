use bytes::Bytes;
use sleuth_core::{
    Attempt, ByteSpan, CacheUse, Change, CorrectEvent, Corrected, Correction, DropReason, Failure,
    Proposal, Proposed, Reason, Rescored, Scored, Timing,
};
use sleuth_proto::v1;
use sleuth_proto::v1::correct_response::Kind;

use crate::assembly::{read_cache_use, read_timing, span as read_span};
use crate::score::{refused, rewards, span};
use crate::{Assembly, Place, Refusal, Rows, Unreadable, invalid, scores, utf8_text, valid};

/// What a client reads of a correction.
#[derive(Clone, Debug, PartialEq)]
pub enum CorrectReply {
    /// The response as it came was scored.
    Scored {
        /// Its rewards; without version, timing and caches.
        scored: Box<Scored>,
        /// Flagged tokens as spans of whole words.
        words: Vec<ByteSpan>,
    },
    /// A repair is to be scored, or a prompt asks for one.
    Proposed(Proposed),
    /// What became of a repair.
    Rescored {
        /// From 1.
        round: u32,
        /// From 0 within the round.
        candidate: u32,
        /// Its rewards, where it was scored.
        scored: Option<Box<Scored>>,
        /// Why it was not, where it was not.
        failure: Option<Refusal>,
        /// Why it was dropped; `None` where it was kept.
        dropped: Option<DropReason>,
    },
    /// The end.
    Final(Box<Finished>),
}

/// The end of a correction, as a client reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// The response to use and its rewards, without tokens.
    pub outcome: Result<Used, Refusal>,
    /// Rounds taken.
    pub rounds: u32,
    /// Every repair, in order.
    pub attempts: Vec<Attempt>,
}

/// A response to use.
#[derive(Clone, Debug, PartialEq)]
pub struct Used {
    /// The response.
    pub response: String,
    /// Its reward, by the item's aggregation.
    pub reward: f32,
    /// The reward of the response as it came.
    pub reward_before: f32,
    /// The version that judged.
    pub version: String,
    /// How long the last scoring took.
    pub timing: Timing,
    /// What need not be computed for it.
    pub cache: CacheUse,
    /// How the response differs from what came.
    pub changes: Vec<Change>,
    /// Repairs kept.
    pub kept: u32,
    /// Why the correction ended before its time.
    pub stopped: Option<Refusal>,
}

/// The message of an event. All rewards must be [`sound`](crate::sound).
pub fn correct_event(key: &v1::Key, event: CorrectEvent) -> Kind {
    let own = || Some(key.clone());
    match event {
        CorrectEvent::Scored { scored, words } => Kind::Scored(v1::CorrectScored {
            key: own(),
            scores: all_scores(key, &scored),
            valid: Some(rewards(&scored)),
            words: words.into_iter().map(span).collect(),
        }),
        CorrectEvent::Proposed(Proposed { round, candidate, proposal }) => {
            let base = v1::Proposal { key: own(), round, candidate, ..v1::Proposal::default() };
            Kind::Proposal(match proposal {
                Proposal::Repair { response, replaced } => v1::Proposal {
                    response: Bytes::from(response),
                    replaced: replaced.into_iter().map(span).collect(),
                    ..base
                },
                Proposal::Guidance(prompt) => {
                    v1::Proposal { guidance: Bytes::from(prompt), ..base }
                }
            })
        }
        CorrectEvent::Rescored(Rescored { round, candidate, scored, failure, dropped }) => {
            Kind::Rescored(v1::Rescored {
                key: own(),
                round,
                candidate,
                scores: scored.as_deref().and_then(|scored| all_scores(key, scored)),
                valid: scored.as_deref().map(rewards),
                kept: dropped.is_none(),
                drop_reason: drop_reason(dropped) as i32,
                invalid: failure.map(|failure| refused(&failure, Place::Request)),
            })
        }
    }
}

/// The message of an item's end; without a key where the item came without one.
pub fn correction(key: Option<&v1::Key>, correction: &Correction) -> v1::Final {
    let attempts = correction.attempts.iter().map(attempt).collect();
    let base = v1::Final { rounds: correction.rounds, attempts, ..v1::Final::default() };
    match &correction.outcome {
        Err(failure) => {
            let verdict = Some(invalid(key.cloned(), failure, Place::Correct));
            v1::Final { verdict, ..base }
        }
        Ok(corrected) => {
            let Corrected { response, scored, reward_before, changes, kept, stopped } = corrected;
            let change = |change: &Change| v1::Change {
                before: Some(span(change.before)),
                after: Some(span(change.after)),
            };
            v1::Final {
                response: Bytes::from(response.clone()),
                kept: *kept,
                verdict: Some(valid(key.cloned(), scored)),
                changes: changes.iter().map(change).collect(),
                reward_before: Some(*reward_before),
                stopped: stopped.as_ref().map(|failure| refused(failure, Place::Correct)),
                ..base
            }
        }
    }
}

/// Reads a server's message about an item. `None` for a notice, which is about the stream.
pub fn correct_reply(kind: Kind) -> Result<Option<CorrectReply>, Unreadable> {
    Ok(Some(match kind {
        Kind::Notice(_) => return Ok(None),
        Kind::Scored(wire) => CorrectReply::Scored {
            scored: Box::new(assembled(wire.scores.as_ref(), wire.valid)?),
            words: wire.words.into_iter().map(read_span).collect::<Result<_, _>>()?,
        },
        Kind::Proposal(wire) => {
            let proposal = if wire.guidance.is_empty() {
                Proposal::Repair {
                    response: text(wire.response)?,
                    replaced: wire.replaced.into_iter().map(read_span).collect::<Result<_, _>>()?,
                }
            } else {
                Proposal::Guidance(text(wire.guidance)?)
            };
            CorrectReply::Proposed(Proposed {
                round: wire.round,
                candidate: wire.candidate,
                proposal,
            })
        }
        Kind::Rescored(wire) => CorrectReply::Rescored {
            round: wire.round,
            candidate: wire.candidate,
            scored: match wire.valid {
                None => None,
                valid => Some(Box::new(assembled(wire.scores.as_ref(), valid)?)),
            },
            failure: wire.invalid.map(Refusal::from),
            dropped: dropped(wire.kept, wire.drop_reason)?,
        },
        Kind::Final(wire) => CorrectReply::Final(Box::new(finished(wire)?)),
    }))
}

fn finished(wire: v1::Final) -> Result<Finished, Unreadable> {
    let attempts = wire.attempts.iter().map(read_attempt).collect::<Result<_, _>>()?;
    let verdict = wire.verdict.ok_or(Unreadable::Missing("verdict"))?;
    let outcome = match verdict.outcome.ok_or(Unreadable::Missing("outcome"))? {
        v1::verdict::Outcome::Invalid(invalid) => Err(Refusal::from(invalid)),
        v1::verdict::Outcome::Valid(valid) => {
            let before = wire.reward_before.ok_or(Unreadable::Missing("reward_before"))?;
            if !valid.reward.is_finite() || !before.is_finite() {
                return Err(Unreadable::NotFinite);
            }
            Ok(Used {
                response: text(wire.response)?,
                reward: valid.reward,
                reward_before: before,
                version: verdict.version,
                timing: verdict.timing.map(read_timing).unwrap_or_default(),
                cache: verdict.cache.map(read_cache_use).unwrap_or_default(),
                changes: wire.changes.into_iter().map(read_change).collect::<Result<_, _>>()?,
                kept: wire.kept,
                stopped: wire.stopped.map(Refusal::from),
            })
        }
    };
    Ok(Finished { outcome, rounds: wire.rounds, attempts })
}

/// The rewards of an event, which come without a version, times and caches.
fn assembled(scores: Option<&v1::Scores>, valid: Option<v1::Valid>) -> Result<Scored, Unreadable> {
    let valid = valid.ok_or(Unreadable::Missing("valid"))?;
    let scores = scores.ok_or(Unreadable::Missing("scores"))?;
    let mut assembly = Assembly::new(false);
    assembly.push(scores)?;
    let outcome = Some(v1::verdict::Outcome::Valid(valid));
    let verdict = v1::Verdict { outcome, ..v1::Verdict::default() };
    assembly.finish(verdict)?.map_err(|_| Unreadable::Missing("valid"))
}

/// All tokens in one message.
fn all_scores(key: &v1::Key, scored: &Scored) -> Option<v1::Scores> {
    scores(Some(key), Rows::of(scored), 0, usize::MAX).next()
}

fn attempt(attempt: &Attempt) -> v1::Attempt {
    v1::Attempt {
        round: attempt.round,
        candidate: attempt.candidate,
        reward: attempt.reward,
        flagged_tokens: attempt.flagged_tokens,
        kept: attempt.dropped.is_none(),
        drop_reason: drop_reason(attempt.dropped) as i32,
    }
}

fn read_attempt(wire: &v1::Attempt) -> Result<Attempt, Unreadable> {
    Ok(Attempt {
        round: wire.round,
        candidate: wire.candidate,
        reward: wire.reward,
        flagged_tokens: wire.flagged_tokens,
        dropped: dropped(wire.kept, wire.drop_reason)?,
    })
}

fn read_change(wire: v1::Change) -> Result<Change, Unreadable> {
    let missing = Unreadable::Missing("changes.span");
    Ok(Change {
        before: read_span(wire.before.ok_or(missing)?)?,
        after: read_span(wire.after.ok_or(missing)?)?,
    })
}

const fn drop_reason(dropped: Option<DropReason>) -> v1::DropReason {
    match dropped {
        None => v1::DropReason::Unspecified,
        Some(DropReason::NotFewerFlags) => v1::DropReason::NotFewerFlags,
        Some(DropReason::SmallGain) => v1::DropReason::SmallGain,
        Some(DropReason::NewFlaggedSentence) => v1::DropReason::NewFlaggedSentence,
        Some(DropReason::TextLost) => v1::DropReason::TextLost,
        Some(DropReason::TextAdded) => v1::DropReason::TextAdded,
        Some(DropReason::OtherBetter) => v1::DropReason::OtherBetter,
        Some(DropReason::Unscored) => v1::DropReason::Unscored,
    }
}

fn dropped(kept: bool, number: i32) -> Result<Option<DropReason>, Unreadable> {
    if kept {
        return Ok(None);
    }
    let named = |reason: &DropReason| drop_reason(Some(*reason)) as i32 == number;
    let reason = DropReason::ALL.into_iter().find(named);
    reason.map(Some).ok_or(Unreadable::Missing("drop_reason"))
}

fn text(bytes: Bytes) -> Result<String, Unreadable> {
    let read: Result<String, Failure> = utf8_text(bytes, Reason::RESPONSE_NOT_UTF8, "response");
    read.map_err(|_| Unreadable::Missing("response"))
}

#[cfg(test)]
mod tests {
    use sleuth_core::{Aggregation, CacheUse, ErrorClass, SentenceReward, Timing, TokenReward};

    use super::*;

    fn bytes(start: u32, end: u32) -> ByteSpan {
        ByteSpan::try_new(start, end).unwrap()
    }

    fn scored() -> Scored {
        Scored {
            tokens: vec![TokenReward::from_logit(bytes(0, 3), 1.0)],
            policy: None,
            sentences: vec![SentenceReward { span: bytes(0, 3), reward: 0.7 }],
            flagged: vec![bytes(0, 3)],
            reward: 0.7,
            aggregation: Aggregation::MeanLog,
            version: String::new(),
            batch_invariant: true,
            timing: Timing::default(),
            cache: CacheUse::default(),
            duplicates_joined: 0,
        }
    }

    fn key() -> v1::Key {
        v1::Key { item_id: "a".to_owned(), attempt: 2 }
    }

    fn read(event: CorrectEvent) -> CorrectReply {
        correct_reply(correct_event(&key(), event)).unwrap().unwrap()
    }

    #[test]
    fn events_read_back() {
        let words = vec![bytes(0, 3)];
        let own = Box::new(scored());
        let event = CorrectEvent::Scored { scored: own.clone(), words: words.clone() };
        assert_eq!(read(event), CorrectReply::Scored { scored: own.clone(), words });
        let repair = Proposal::Repair { response: "b".to_owned(), replaced: vec![bytes(0, 1)] };
        for proposal in [repair, Proposal::Guidance("Please.".to_owned())] {
            let proposed = Proposed { round: 2, candidate: 3, proposal };
            let event = CorrectEvent::Proposed(proposed.clone());
            assert_eq!(read(event), CorrectReply::Proposed(proposed));
        }
        for dropped in DropReason::ALL.map(Some).into_iter().chain([None]) {
            for scored in [None, Some(own.clone())] {
                let (round, candidate, failure) = (1, 0, None);
                let scored = || scored.clone();
                let event = Rescored { round, candidate, scored: scored(), failure, dropped };
                let expected = CorrectReply::Rescored {
                    round,
                    candidate,
                    scored: scored(),
                    failure: None,
                    dropped,
                };
                assert_eq!(read(CorrectEvent::Rescored(event)), expected);
            }
        }
    }

    #[test]
    fn ends_read_back_and_a_failure_has_no_response() {
        let attempt = Attempt {
            round: 1,
            candidate: 0,
            reward: Some(0.5),
            flagged_tokens: Some(1),
            dropped: Some(DropReason::SmallGain),
        };
        let stopped = Failure::new(ErrorClass::Deadline, Reason::DEADLINE_PASSED, "late");
        let change = Change { before: bytes(0, 1), after: bytes(0, 2) };
        let corrected = Corrected {
            response: "ab".to_owned(),
            scored: Scored { version: "v1".to_owned(), ..scored() },
            reward_before: 0.25,
            changes: vec![change],
            kept: 1,
            stopped: Some(stopped.clone()),
        };
        let attempts = vec![attempt.clone()];
        let whole = Correction { outcome: Ok(corrected), rounds: 2, attempts };
        let wire = correction(Some(&key()), &whole);
        assert_eq!(wire.verdict.as_ref().unwrap().key, Some(key()));
        let CorrectReply::Final(read) = correct_reply(Kind::Final(wire)).unwrap().unwrap() else {
            panic!("an end")
        };
        assert_eq!((read.rounds, read.attempts), (2, vec![attempt]));
        let used = read.outcome.unwrap();
        assert_eq!((used.response.as_str(), used.reward, used.reward_before), ("ab", 0.7, 0.25));
        assert_eq!((used.version.as_str(), used.changes, used.kept), ("v1", vec![change], 1));
        assert_eq!(used.stopped.unwrap().class, ErrorClass::Deadline);

        let wire = correction(Some(&key()), &Correction::failed(stopped));
        assert!(wire.response.is_empty() && wire.reward_before.is_none());
        let CorrectReply::Final(read) = correct_reply(Kind::Final(wire)).unwrap().unwrap() else {
            panic!("an end")
        };
        assert_eq!(read.outcome.unwrap_err().reason, "deadline_passed");
    }
}
