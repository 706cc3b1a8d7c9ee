use std::collections::BTreeMap;

use serde::Serialize;

use crate::load::Answer;

/// Distinct texts of the server that are counted apart.
const MOST_TEXTS: usize = 64;
/// Where all further ones are counted.
const OTHERS: &str = "(others)";

/// What became of all items.
///
/// `attempts = valid + refused + lost + unanswered`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Items that were sent, however often.
    pub sent: u64,
    /// Items that came due while too many were unfinished.
    pub not_sent: u64,
    /// Sendings of items: retries and copies included.
    pub attempts: u64,
    /// Attempts that brought rewards.
    pub valid: u64,
    /// Attempts that were refused.
    pub refused: u64,
    /// Those, by class and reason.
    pub refusals: BTreeMap<String, BTreeMap<String, u64>>,
    /// Attempts of which it is known that no verdict will come.
    pub lost: u64,
    /// Those, by what happened.
    pub losses: BTreeMap<String, u64>,
    /// Attempts without a verdict at the end.
    pub unanswered: u64,
    /// Verdicts that nothing waited for: a second one for an attempt, or one for an item that was
    /// never sent.
    pub twice_answered: u64,
    /// Rewards of valid verdicts.
    pub rewards: u64,
    /// Rewards that are exactly 0.0, those of whole responses among them.
    pub zeros: u64,
    /// Valid verdicts whose response reward is not a finite number.
    pub not_finite: u64,
    /// Valid verdicts without a token reward.
    pub without_rewards: u64,
    /// Valid verdicts that the batch may have swayed.
    pub not_batch_invariant: u64,
    /// Valid verdicts by version.
    pub versions: BTreeMap<String, u64>,
    /// Groups of which an item came due.
    pub groups: u64,
    /// Groups whose valid verdicts came from more than one version.
    pub mixed_groups: u64,
    /// Items that got different rewards for different attempts.
    pub changed_answers: u64,
    /// Attempts that the server answered with another's computation.
    pub duplicates_joined: u64,
}

/// Whether the server kept its promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    problems: Vec<String>,
}

// === impl Counts ===

impl Counts {
    /// Whether the server kept its promises.
    ///
    /// Refused items and ones not sent break none: those are told, and not hidden in a reward.
    pub fn verdict(&self) -> Verdict {
        let kinds = [
            (self.lost, "attempts were lost"),
            (self.unanswered, "attempts were never answered"),
            (self.twice_answered, "verdicts came that nothing waited for"),
            (self.mixed_groups, "groups mix versions"),
            (self.changed_answers, "items got different rewards for different attempts"),
            (self.zeros, "rewards are exactly 0"),
            (self.not_finite, "response rewards are not finite"),
        ];
        let broken = kinds.into_iter().filter(|(count, _)| *count > 0);
        Verdict { problems: broken.map(|(count, what)| format!("{count} {what}")).collect() }
    }

    pub(super) fn take(&mut self, answer: &Answer) {
        match answer {
            Answer::Valid { .. } => self.valid(answer),
            Answer::Refused { class, reason, .. } => {
                self.refused += 1;
                let class = capped(&self.refusals, class).to_owned();
                count(self.refusals.entry(class).or_default(), reason);
            }
            Answer::Lost { why } => {
                self.lost += 1;
                count(&mut self.losses, why);
            }
        }
    }

    fn valid(&mut self, answer: &Answer) {
        let Answer::Valid {
            version,
            rewards,
            zeros,
            response_reward,
            batch_invariant,
            duplicates_joined,
            ..
        } = answer
        else {
            return;
        };
        self.valid += 1;
        self.rewards += *rewards as u64;
        self.zeros += *zeros as u64 + u64::from(*response_reward == 0.0);
        self.not_finite += u64::from(!response_reward.is_finite());
        self.without_rewards += u64::from(*rewards == 0);
        self.not_batch_invariant += u64::from(!batch_invariant);
        self.duplicates_joined = self.duplicates_joined.saturating_add(*duplicates_joined);
        count(&mut self.versions, version);
    }
}

// === impl Verdict ===

impl Verdict {
    /// Whether there are no problems.
    pub fn passes(&self) -> bool {
        self.problems.is_empty()
    }

    /// The broken promises in words, each with how often.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

fn count(tally: &mut BTreeMap<String, u64>, text: &str) {
    // Most are known, and need no text of their own.
    if let Some(count) = tally.get_mut(text) {
        *count += 1;
    } else {
        let text = capped(tally, text).to_owned();
        *tally.entry(text).or_default() += 1;
    }
}

/// The text, or [`OTHERS`] where it is new and there are many already: memory does not hang on what
/// the server writes.
fn capped<'a, T>(tally: &BTreeMap<String, T>, text: &'a str) -> &'a str {
    if tally.len() < MOST_TEXTS || tally.contains_key(text) { text } else { OTHERS }
}
