use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sleuth_core::{
    ByteSpan, Encoded, ErrorClass, Failure, PolicyTokens, Realignment, Reason, Scored, TokenReward,
    realign,
};
use tokio::time::Instant;

use super::{Appended, OpenEvent, OpenSettings, Rewards, replays};
use crate::once::{Outcome, Stored};
use crate::{Growing, failures};

/// What is known of a response that is being generated.
///
/// Invariants
/// - `rewards` are those of the first of `settled`'s tokens.
/// - Policy tokens, once there are some, cover all bytes that were received.
pub(crate) struct State {
    response: Box<dyn Growing>,
    settled: Encoded,
    /// Settled tokens that were handed out to be scored.
    taken: usize,
    rewards: Vec<TokenReward>,
    policy: Policy,
    realignment: Realignment,
    closed: bool,
    /// Bytes that only the end of the response settled.
    held_to_the_end: usize,
    failed: Option<Failure>,
    appended: Instant,
    /// Since when settled tokens wait to be handed out.
    waiting: Option<Instant>,
    replay: Option<Arc<Stored>>,
    outcome: Option<Outcome>,
}

/// Tokens to score now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) ids: Vec<u32>,
    /// Where they stand.
    pub(crate) spans: Vec<ByteSpan>,
    /// Nothing comes after them.
    pub(crate) is_last: bool,
}

/// The policy's tokens so far.
enum Policy {
    /// Nothing was appended yet.
    Unknown,
    /// Appends come without.
    None,
    /// Where each ends.
    Ends(Vec<u32>),
}

/// How many tokens of the policy may have no bytes, beside as many again as the text has bytes.
const TOKENS_WITHOUT_BYTES: usize = 1024;

// === impl State ===

impl State {
    pub(crate) fn new(
        response: Box<dyn Growing>,
        realignment: Realignment,
        replay: Option<Arc<Stored>>,
    ) -> Self {
        Self {
            response,
            settled: Encoded::default(),
            taken: 0,
            rewards: Vec::new(),
            policy: Policy::Unknown,
            realignment,
            closed: false,
            held_to_the_end: 0,
            failed: None,
            appended: Instant::now(),
            waiting: None,
            replay,
            outcome: None,
        }
    }

    pub(crate) fn append(&mut self, appended: &Appended) {
        if self.is_over() {
            return;
        }
        self.appended = Instant::now();
        if let Err(failure) = self.take(appended) {
            self.fail(failure);
        }
    }

    pub(crate) fn close(&mut self) {
        if self.is_over() || self.closed {
            return;
        }
        self.closed = true;
        if let Some(stored) = &self.replay {
            let same = replays(stored, self.response.bytes());
            let outcome = if same { stored.replay() } else { Err(conflict()) };
            self.end(outcome);
            return;
        }
        self.held_to_the_end = self.response.held_back();
        let rest = guarded(|| self.response.finish());
        match rest {
            Ok(rest) => self.settle(rest),
            Err(failure) => self.fail(failure),
        }
    }

    /// Takes what a whole response has beyond what was received, and closes; false where it is
    /// another response.
    pub(crate) fn complete(&mut self, response: &str) -> bool {
        let received = self.response.bytes().len();
        let (bytes, same) = (response.as_bytes(), self.response.bytes());
        // The rest of an item with policy tokens has to come with its own.
        let may_go_on = !matches!(self.policy, Policy::Ends(_)) && bytes.len() >= received;
        let fits = bytes.starts_with(same)
            && if self.closed { bytes.len() == received } else { may_go_on };
        if fits && !self.closed {
            let text = bytes::Bytes::copy_from_slice(&bytes[received..]);
            self.append(&Appended { offset: received as u64, text, policy: None });
            self.close();
        }
        fits
    }

    fn take(&mut self, appended: &Appended) -> Result<(), Failure> {
        let Appended { offset, text, policy } = appended;
        let received = self.response.bytes().len();
        let offset = usize::try_from(*offset).ok().filter(|&at| at <= received);
        let Some(offset) = offset else { return Err(gap(received)) };
        let known = text.len().min(received - offset);
        if self.response.bytes()[offset..offset + known] != text[..known] {
            let detail = "this text is not what was received at its offset before";
            return Err(invalid(Reason::APPEND_CONFLICT, detail, "offset"));
        }
        let new = text.slice(known..);
        if self.closed {
            let detail = "the item was closed before this text";
            let closed = invalid(Reason::ITEM_CLOSED, detail, "text");
            return if new.is_empty() { Ok(()) } else { Err(closed) };
        }
        self.policy.extend(policy.as_ref(), offset, text, received)?;
        if new.is_empty() {
            return Ok(());
        }
        let settled = guarded(|| self.response.push(&new))?;
        self.settle(settled);
        Ok(())
    }

    fn settle(&mut self, tokens: Encoded) {
        if !tokens.ids.is_empty() {
            self.waiting.get_or_insert_with(Instant::now);
        }
        self.settled.ids.extend(tokens.ids);
        self.settled.spans.extend(tokens.spans);
    }

    /// Tokens to score now, or when to look again.
    pub(crate) fn chunk(
        &mut self,
        settings: &OpenSettings,
        now: Instant,
    ) -> Result<Result<Chunk, Instant>, Failure> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        let waiting = self.settled.ids.len() - self.taken;
        let since = self.waiting.map(|since| since + settings.coalesce_time);
        let is_due = waiting >= settings.coalesce_tokens || since.is_some_and(|due| due <= now);
        if self.closed || is_due {
            let taken = std::mem::replace(&mut self.taken, self.settled.ids.len());
            self.waiting = None;
            let ids = self.settled.ids[taken..].to_vec();
            let spans = self.settled.spans[taken..].to_vec();
            return Ok(Ok(Chunk { ids, spans, is_last: self.closed }));
        }
        let idle = self.appended + settings.idle;
        if idle <= now {
            return Err(idle_for(settings));
        }
        Ok(Err(since.map_or(idle, |due| due.min(idle))))
    }

    pub(crate) fn push(&mut self, rewards: Vec<TokenReward>) {
        self.rewards.extend(rewards);
    }

    pub(crate) fn end(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
    }

    /// What comes after the first `read` tokens; `None` for nothing yet.
    pub(crate) fn read(&self, read: usize) -> Option<OpenEvent> {
        let rewards = self.ready(read);
        if !rewards.is_empty() {
            return Some(OpenEvent::Scores { first: read, rewards });
        }
        let outcome = self.outcome.as_ref()?;
        Some(OpenEvent::Verdict(outcome.clone().map(|scored| self.in_policy_tokens(&scored))))
    }

    fn ready(&self, read: usize) -> Rewards {
        let rewards = match &self.outcome {
            Some(Ok(scored)) => &scored.tokens,
            _ => &self.rewards,
        };
        let Policy::Ends(ends) = &self.policy else {
            return Rewards::Model(rewards.get(read..).unwrap_or_default().to_vec());
        };
        // Settled text ends between characters, so no later token shares a character with these.
        let scored = rewards.last().map_or(0, |token| token.span.end());
        let ready = ends.partition_point(|&end| end <= scored);
        let spans = sleuth_core::spans_of_ends(&ends[..ready]);
        let policy = realign(rewards, spans.get(read..).unwrap_or_default(), self.realignment);
        Rewards::Policy(policy)
    }

    fn in_policy_tokens(&self, scored: &Scored) -> Scored {
        let policy = match self.ready(0) {
            Rewards::Policy(policy) => Some(policy),
            Rewards::Model(_) => None,
        };
        Scored { policy, ..scored.clone() }
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.outcome.clone()
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failed.clone()
    }

    /// Bytes that were appended, and those of them that only the end of the response settled.
    pub(crate) fn appended(&self) -> (usize, usize) {
        (self.response.bytes().len(), self.held_to_the_end)
    }

    /// The whole response, once it is closed.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.response.bytes()).into_owned()
    }

    pub(crate) fn settled(&self) -> &Encoded {
        &self.settled
    }

    pub(crate) fn logits(&self) -> Vec<f32> {
        self.rewards.iter().map(|token| token.logit).collect()
    }

    pub(crate) fn held_back(&self) -> usize {
        self.response.held_back()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    fn is_over(&self) -> bool {
        self.outcome.is_some() || self.failed.is_some()
    }

    fn fail(&mut self, failure: Failure) {
        if self.replay.is_some() {
            self.end(Err(failure));
        } else {
            self.failed = Some(failure);
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("bytes", &self.response.bytes().len())
            .field("settled", &self.settled.ids.len())
            .field("scored", &self.rewards.len())
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

// === impl Policy ===

impl Policy {
    /// Takes the tokens of `text`, which stands at `offset` where `received` bytes were known.
    fn extend(
        &mut self,
        policy: Option<&PolicyTokens>,
        offset: usize,
        text: &[u8],
        received: usize,
    ) -> Result<(), Failure> {
        let is_new = offset + text.len() > received;
        let Some(policy) = policy else {
            return match self {
                Self::Ends(_) if is_new => Err(uneven()),
                Self::Unknown if is_new => {
                    *self = Self::None;
                    Ok(())
                }
                _ => Ok(()),
            };
        };
        let given = absolute(policy, offset, text)?;
        match self {
            Self::None => return Err(uneven()),
            Self::Unknown => *self = Self::Ends(Vec::new()),
            Self::Ends(_) => {}
        }
        let Self::Ends(ends) = self else { return Ok(()) };
        let (at, end) = (offset as u32, (offset + text.len()) as u32);
        if is_new && offset == received {
            ends.extend(given);
        } else if is_new {
            ends.extend(given.into_iter().filter(|&end| end as usize > received));
        } else if end as usize == received {
            // Text that is here already; tokens without bytes behind it may be new.
            let missing =
                without_bytes(&given, at, end).saturating_sub(without_bytes(ends, 0, end));
            ends.extend(std::iter::repeat_n(end, missing));
        }
        if ends.len() > TOKENS_WITHOUT_BYTES + 2 * received.max(end as usize) {
            let detail = "too many tokens have no bytes";
            return Err(invalid(Reason::POLICY_MISMATCH, detail, "policy"));
        }
        Ok(())
    }
}

/// How many of the tokens that end at `end` have no bytes; the first token starts at `start`.
fn without_bytes(ends: &[u32], start: u32, end: u32) -> usize {
    let before = ends.partition_point(|&e| e < end);
    let starts_there = before == 0 && start == end;
    (ends.len() - before).saturating_sub(usize::from(!starts_there))
}

/// Where the tokens of `text` end in the response.
fn absolute(policy: &PolicyTokens, offset: usize, text: &[u8]) -> Result<Vec<u32>, Failure> {
    let at = offset as u32;
    let ends = match policy {
        PolicyTokens::Ends(ends) => {
            let relative = ends.iter().map(|end| end.checked_sub(at)).collect::<Option<Vec<_>>>();
            let Some(relative) = relative else {
                let detail = "a token ends before the text that was appended";
                return Err(invalid(Reason::POLICY_MISMATCH, detail, "policy"));
            };
            PolicyTokens::Ends(relative).ends(text, offset == 0)
        }
        PolicyTokens::Pieces(_) => policy.ends(text, offset == 0),
    };
    let ends = ends.map_err(|e| invalid(Reason::POLICY_MISMATCH, &e.to_string(), "policy"))?;
    Ok(ends.into_iter().map(|end| end.saturating_add(at)).collect())
}

/// The tokenizer library may panic on what it did not expect: that costs this item only.
fn guarded(work: impl FnOnce() -> Result<Encoded, Failure>) -> Result<Encoded, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(failures::worker_failed()))
}

fn gap(received: usize) -> Failure {
    let detail = format!("{received} bytes were received, so text starts there or before");
    invalid(Reason::APPEND_GAP, &detail, "offset")
}

fn uneven() -> Failure {
    let detail = "either all text of an item comes with policy tokens, or none";
    invalid(Reason::POLICY_MISMATCH, detail, "policy")
}

fn conflict() -> Failure {
    let detail = "this key was used for another response; a key names one item only";
    let reason = Reason::IDEMPOTENCY_CONFLICT;
    invalid(reason, detail, "context.idempotency_key")
}

fn idle_for(settings: &OpenSettings) -> Failure {
    let detail = format!("nothing was appended for {} s", settings.idle.as_secs());
    Failure::new(ErrorClass::Deadline, Reason::ITEM_IDLE, detail)
}

fn invalid(reason: Reason, detail: &str, field: &'static str) -> Failure {
    Failure::new(ErrorClass::InvalidRequest, reason, detail).at(field)
}
