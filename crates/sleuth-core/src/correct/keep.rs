use std::fmt;

use super::difference::{Alignment, Block};
use super::words::{Unit, UnitKind, flagged_words, words};
use crate::{Aggregation, ByteSpan, Scored, SentenceRule, TokenReward, sentences};

/// When a repair replaces what was there.
///
/// All must hold: flagged tokens fall, and per word too; the `mean_log` reward rises by at least
/// [`LEAST_GAIN`](Self::LEAST_GAIN); no sentence becomes flagged that was not, nor comes in flagged;
/// at least 80 % of the words that were not flagged remain; and at most half as many words and
/// eight come in. Otherwise deleting and padding would be repairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeepRule {
    /// A token is flagged where its reward is not above this.
    pub threshold: f32,
    /// How responses are cut into sentences.
    pub sentences: SentenceRule,
}

/// A response and the rewards of all of its tokens, in order.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// The response.
    pub text: &'a str,
    /// Its tokens.
    pub tokens: &'a [TokenReward],
}

/// Why a repair does not replace what was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// Flagged tokens did not fall, or not per word; also where nothing was changed.
    NotFewerFlags,
    /// The reward rose by less than the least gain.
    SmallGain,
    /// A sentence that was not flagged became flagged, or a flagged one came in.
    NewFlaggedSentence,
    /// Too few of the unflagged words remain.
    TextLost,
    /// It holds far more words than what it replaces.
    TextAdded,
    /// Another candidate of the round was kept.
    OtherBetter,
    /// It could not be scored.
    Unscored,
}

// === impl DropReason ===

impl DropReason {
    /// Every reason, in the order of the wire's numbers.
    pub const ALL: [Self; 7] = [
        Self::NotFewerFlags,
        Self::SmallGain,
        Self::NewFlaggedSentence,
        Self::TextLost,
        Self::TextAdded,
        Self::OtherBetter,
        Self::Unscored,
    ];

    /// The name used in JSON and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFewerFlags => "not_fewer_flags",
            Self::SmallGain => "small_gain",
            Self::NewFlaggedSentence => "new_flagged_sentence",
            Self::TextLost => "text_lost",
            Self::TextAdded => "text_added",
            Self::OtherBetter => "other_better",
            Self::Unscored => "unscored",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl KeepRule ===

impl KeepRule {
    /// Least rise of the `mean_log` reward.
    pub const LEAST_GAIN: f32 = 0.01;

    /// What can be said of a repair before it is scored: whether it changes anything, and leaves
    /// and adds what it may.
    pub fn admits(self, before: Judged<'_>, repaired: &str) -> Result<(), DropReason> {
        self.admits_aligned(before, &Alignment::new(before.text, repaired))
    }

    /// Whether a repair replaces `before`; if so, its `mean_log` reward, in 0..=1.
    pub fn judge(self, before: Judged<'_>, after: Judged<'_>) -> Result<f32, DropReason> {
        let alignment = Alignment::new(before.text, after.text);
        self.admits_aligned(before, &alignment)?;
        let per_word = |judged: Judged<'_>, other: Judged<'_>| {
            self.flagged_tokens(judged.tokens) * words(other.text).len().max(1)
        };
        let (had, has) = (self.flagged_tokens(before.tokens), self.flagged_tokens(after.tokens));
        if has >= had || per_word(after, before) >= per_word(before, after) {
            return Err(DropReason::NotFewerFlags);
        }
        let reward = self.reward(after.tokens);
        // In f64: a gain of the very least must not hang on how f32 rounds a difference.
        if f64::from(reward) - f64::from(self.reward(before.tokens)) < f64::from(Self::LEAST_GAIN) {
            return Err(DropReason::SmallGain);
        }
        if self.newly_flagged(before, after, &alignment) {
            return Err(DropReason::NewFlaggedSentence);
        }
        Ok(reward)
    }

    /// The `mean_log` reward; 0 without tokens.
    pub fn reward(self, tokens: &[TokenReward]) -> f32 {
        Aggregation::MeanLog.apply(tokens, self.threshold).unwrap_or(0.0)
    }

    /// How many tokens are flagged.
    pub fn flagged_tokens(self, tokens: &[TokenReward]) -> usize {
        tokens.iter().filter(|token| !token.is_good(self.threshold)).count()
    }

    fn admits_aligned(
        self,
        before: Judged<'_>,
        alignment: &Alignment<'_>,
    ) -> Result<(), DropReason> {
        let Alignment { before: old, after: new, blocks } = alignment;
        let is_word = |unit: &&Unit<'_>| unit.kind == UnitKind::Word;
        if !new.iter().any(|unit| unit.kind != UnitKind::Space) {
            return Err(DropReason::TextLost);
        }
        if blocks.iter().all(|block| block.is_equal) {
            return Err(DropReason::NotFewerFlags);
        }
        let flagged =
            flagged_words(before.text, &Scored::flagged_spans(before.tokens, self.threshold));
        let is_fine = |unit: &&Unit<'_>| {
            let at = flagged.partition_point(|span| span.end() <= unit.span.start());
            !flagged.get(at).is_some_and(|span| span.overlaps(unit.span))
        };
        let fine = old.iter().filter(is_word).filter(is_fine).count();
        let equal = blocks.iter().filter(|block| block.is_equal);
        let remaining: usize = equal
            .map(|block| old[block.before.clone()].iter().filter(is_word).filter(is_fine).count())
            .sum();
        if remaining * 5 < fine * 4 {
            return Err(DropReason::TextLost);
        }
        let (had, has) = (old.iter().filter(is_word).count(), new.iter().filter(is_word).count());
        if has * 2 > had * 3 + 16 {
            return Err(DropReason::TextAdded);
        }
        Ok(())
    }

    /// Whether a flagged sentence of `after` comes from no flagged one of `before`.
    fn newly_flagged(
        self,
        before: Judged<'_>,
        after: Judged<'_>,
        alignment: &Alignment<'_>,
    ) -> bool {
        let (old, new) = (self.said(before), self.said(after));
        let mut flagged = new.iter().filter(|sentence| sentence.is_flagged);
        flagged.any(|sentence| !comes_from_flagged(sentence.span, &old, alignment))
    }

    fn said(self, judged: Judged<'_>) -> Vec<Said> {
        let spans: Vec<ByteSpan> = judged.tokens.iter().map(|token| token.span).collect();
        sentences(self.sentences, judged.text, &spans)
            .into_iter()
            .filter_map(|range| {
                let tokens = judged.tokens.get(range)?;
                let span = tokens.first()?.span.to(tokens.last()?.span);
                Some(Said { span, is_flagged: self.flagged_tokens(tokens) > 0 })
            })
            .collect()
    }
}

/// A sentence.
#[derive(Clone, Copy, Debug)]
struct Said {
    span: ByteSpan,
    is_flagged: bool,
}

/// A sentence comes from the earlier one that it shares most words with; one that shares none, from
/// all those whose words it stands in the place of.
fn comes_from_flagged(sentence: ByteSpan, old: &[Said], alignment: &Alignment<'_>) -> bool {
    let mut shared = vec![0_usize; old.len()];
    let mut replaced = false;
    for Block { is_equal, before, after } in &alignment.blocks {
        let overlaps = |unit: &Unit<'_>| unit.span.overlaps(sentence);
        if *is_equal {
            let pairs = alignment.before[before.clone()].iter().zip(after.clone());
            for (unit, at) in pairs {
                if unit.kind == UnitKind::Word && overlaps(&alignment.after[at]) {
                    let first = old.partition_point(|said| said.span.end() <= unit.span.start());
                    shared.iter_mut().skip(first).take(1).for_each(|count| *count += 1);
                }
            }
        } else if alignment.after[after.clone()].iter().any(overlaps) {
            replaced |= old.iter().any(|said| {
                let stood = |unit: &Unit<'_>| unit.span.overlaps(said.span);
                said.is_flagged && alignment.before[before.clone()].iter().any(stood)
            });
        }
    }
    let most = shared.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return replaced;
    }
    shared.iter().zip(old).any(|(count, said)| *count == most && said.is_flagged)
}

#[cfg(test)]
mod tests;
