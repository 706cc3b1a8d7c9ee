use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use sleuth_core::{
    CorrectEvent, CorrectRequest, Correction, CorrectorKind, ErrorClass, Failure, GuidanceLevel,
    KeepRule, MAX_CANDIDATES, MAX_ROUNDS, Proposal, Proposed, Reason, Rescored, flagged_words,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::progress::{Candidate, Progress, Response, admit, choose};
use super::{Correctable, Corrector, RepairRequest, Rescorer, Sight, guidance_prompt};
use crate::open::INLINE_TEXT;
use crate::{BoxFuture, Caller, Corrects, failures};

/// Corrects responses: scores, has repairs proposed, scores them, keeps what is better.
pub struct Corrections {
    scorer: Arc<dyn Correctable>,
    correctors: Correctors,
    max_timeout: Duration,
}

/// Who can propose repairs here. Guidance is always offered.
#[derive(Clone, Default)]
pub struct Correctors {
    /// The backbone's own language head.
    pub builtin: Option<Arc<dyn Corrector>>,
    /// An OpenAI-compatible server.
    pub endpoint: Option<Arc<dyn Corrector>>,
}

/// An item on its way.
struct Job<'a> {
    request: &'a CorrectRequest<Bytes>,
    deadline: Option<Instant>,
    events: &'a mpsc::Sender<CorrectEvent>,
}

/// What an item is repaired with.
struct Tools {
    corrector: Arc<dyn Corrector>,
    rescorer: Box<dyn Rescorer>,
    sight: Sight,
    rule: KeepRule,
}

// === impl Corrections ===

impl Corrects for Corrections {
    fn correct<'a>(
        &'a self,
        caller: &'a Caller,
        request: CorrectRequest<Bytes>,
        cancelled: BoxFuture<'a, ()>,
        events: &'a mpsc::Sender<CorrectEvent>,
    ) -> BoxFuture<'a, Correction> {
        Box::pin(self.correct(caller, request, cancelled, events))
    }
}

impl Corrections {
    /// Corrects with these correctors; an item takes at most `max_timeout`.
    pub fn new(
        scorer: Arc<dyn Correctable>,
        correctors: Correctors,
        max_timeout: Duration,
    ) -> Self {
        Self { scorer, correctors, max_timeout }
    }

    /// Corrects one item. What happens is sent to `events` as it happens; where nobody reads, the
    /// item waits, to its deadline. A receiver that is gone costs nothing.
    ///
    /// Ends with the first of:
    /// - nothing is flagged, a round brings nothing new, or the rounds are over;
    /// - the corrector fails, the deadline passes, or repairs can no longer be scored: then what was
    ///   kept so far stands, and `stopped` says why it ended;
    /// - the item could not be scored at all, or `cancelled` resolves: a failure, without a response.
    ///
    /// Dropping the future gives the item up.
    pub async fn correct(
        &self,
        caller: &Caller,
        request: CorrectRequest<Bytes>,
        cancelled: impl Future<Output = ()> + Send,
        events: &mpsc::Sender<CorrectEvent>,
    ) -> Correction {
        let most = self.max_timeout;
        let timeout = request.item.context.timeout.map_or(most, |timeout| timeout.min(most));
        let deadline = Instant::now().checked_add(timeout);
        let mut progress = Progress::default();
        let job = Job { request: &request, deadline, events };
        let work = AssertUnwindSafe(self.work(caller, &job, &mut progress)).catch_unwind();
        let within = async {
            match deadline {
                None => work.await,
                Some(_) if timeout.is_zero() => Ok(Err(failures::deadline())),
                Some(at) => timeout_at(at, work).await.unwrap_or(Ok(Err(failures::deadline()))),
            }
        };
        let ended = tokio::select! {
            biased;
            () = cancelled => None,
            ended = within => Some(ended),
        };
        match ended {
            None => progress.given_up(given_up()),
            Some(Ok(Ok(()))) => progress.end(None),
            Some(Ok(Err(failure))) => progress.end(Some(failure)),
            Some(Err(_)) => progress.end(Some(failures::worker_failed())),
        }
    }

    async fn work(
        &self,
        caller: &Caller,
        job: &Job<'_>,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        check(job.request)?;
        let corrector = self.corrector(job.request.corrector)?;
        let mut item = job.request.item.clone();
        let text = item.response.clone();
        item.context.timeout = job.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let mut context = item.context.clone();
        let scored = self.scorer.score(caller, item).await?;
        let words = flagged_words(&text, &scored.flagged);
        let response = progress.begin(text, scored);
        let scored = Box::new(response.scored.clone());
        job.tell(CorrectEvent::Scored { scored, words: words.clone() }).await;
        if words.is_empty() {
            return Ok(());
        }
        // The same version to the end, whatever is loaded meanwhile.
        context.required_version = Some(response.scored.version.clone());
        context.idempotency_key = None;
        let rescorer = self.scorer.rescorer(caller, context).await?;
        let Some(corrector) = corrector else {
            progress.rounds = 1;
            job.guide(&rescorer.sight().await?.prompt, &response).await;
            return Ok(());
        };
        let options = job.request.item.context.options;
        let rule = KeepRule {
            threshold: options.threshold.unwrap_or(rescorer.card().threshold),
            sentences: options.sentences,
        };
        let sight = rescorer.sight().await?;
        let tools = Tools { corrector, rescorer, sight, rule };
        for round in 1..=job.request.max_rounds {
            progress.rounds = round;
            if !job.round(round, &tools, progress).await? {
                break;
            }
        }
        Ok(())
    }

    /// Who proposes; `None` for nobody here.
    fn corrector(&self, kind: CorrectorKind) -> Result<Option<Arc<dyn Corrector>>, Failure> {
        let corrector = match kind {
            CorrectorKind::Guidance => return Ok(None),
            CorrectorKind::Builtin => &self.correctors.builtin,
            CorrectorKind::Endpoint => &self.correctors.endpoint,
        };
        let corrector = corrector.as_ref().ok_or_else(|| {
            let detail = format!("the corrector `{}` is not enabled here", kind.name());
            Failure::new(ErrorClass::Unsupported, Reason::NOT_OFFERED, detail).at("corrector")
        })?;
        Ok(Some(Arc::clone(corrector)))
    }
}

impl fmt::Debug for Corrections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Corrections").field("correctors", &self.correctors).finish_non_exhaustive()
    }
}

impl fmt::Debug for Correctors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Correctors")
            .field("builtin", &self.builtin.is_some())
            .field("endpoint", &self.endpoint.is_some())
            .finish()
    }
}

// === impl Job ===

impl Job<'_> {
    /// Where nobody listens, the work goes on: its end still counts.
    async fn tell(&self, event: CorrectEvent) {
        let _ = self.events.send(event).await;
    }

    /// Has the caller's policy do it.
    async fn guide(&self, prompt: &str, response: &Response) {
        let sentences: Vec<_> = response.scored.sentences.iter().map(|s| s.span).collect();
        let flagged = flagged_words(&response.text, &response.scored.flagged);
        let level = self.request.guidance;
        let text = guidance_prompt(level, prompt, &response.text, &flagged, &sentences);
        let proposal = Proposal::Guidance(text);
        self.tell(CorrectEvent::Proposed(Proposed { round: 1, candidate: 0, proposal })).await;
    }

    /// One round; false where another one would bring nothing.
    async fn round(
        &self,
        round: u32,
        tools: &Tools,
        progress: &mut Progress,
    ) -> Result<bool, Failure> {
        let Some((original, current)) = progress.responses() else { return Ok(false) };
        let request = self.repair_request(round, tools, &current);
        let most = request.candidates;
        let repairs = tools.corrector.propose(&request).await?;
        let new = repairs.into_iter().filter(|repair| progress.is_new(&repair.response));
        let new: Vec<_> = new.take(most).collect();
        if new.is_empty() {
            return Ok(false);
        }
        let mut candidates = Vec::with_capacity(new.len());
        for (number, repair) in new.into_iter().enumerate() {
            let candidate = Candidate::new(number, repair.response.clone());
            let proposal = Proposal::Repair { response: repair.response, replaced: repair.changed };
            let number = candidate.number;
            candidates.push(candidate);
            let proposed = Proposed { round, candidate: number, proposal };
            self.tell(CorrectEvent::Proposed(proposed)).await;
        }
        let rule = tools.rule;
        let (was, now) = (original, Arc::clone(&current));
        let mut candidates = on_text(candidates, move |all| admit(all, rule, &was, &now)).await?;
        self.rescore(&mut candidates, tools).await;
        let candidates = on_text(candidates, move |all| choose(all, rule, &current)).await?;
        progress.settle(round, &candidates, rule);
        let lost = unscored(&candidates);
        for candidate in candidates {
            self.tell(CorrectEvent::Rescored(candidate.event(round))).await;
        }
        match lost {
            Some(failure) => Err(failure),
            None => Ok(progress.responses().is_some_and(|(_, now)| now.is_flagged())),
        }
    }

    fn repair_request(&self, round: u32, tools: &Tools, current: &Response) -> RepairRequest {
        let CorrectRequest { guidance, max_candidates, seed, .. } = *self.request;
        let Sight { image, pixels, image_key, prompt } = tools.sight.clone();
        let flagged = match guidance {
            GuidanceLevel::Token => flagged_words(&current.text, &current.scored.flagged),
            GuidanceLevel::Response | GuidanceLevel::Naive => Vec::new(),
        };
        RepairRequest {
            image,
            pixels,
            image_key,
            prompt,
            response: current.text.clone(),
            guidance,
            flagged,
            sentences: current.scored.sentences.iter().map(|s| s.span).collect(),
            candidates: max_candidates as usize,
            // Candidates may count on from their round's seed.
            seed: seed.wrapping_add(u64::from(round - 1) * u64::from(MAX_CANDIDATES)),
            deadline: self.deadline,
        }
    }

    /// Scores, in one batch, what is not dropped yet.
    async fn rescore(&self, candidates: &mut [Candidate], tools: &Tools) {
        let open = || |candidate: &&mut Candidate| candidate.dropped.is_none();
        let texts: Vec<String> =
            candidates.iter_mut().filter(open()).map(|c| c.text.clone()).collect();
        if texts.is_empty() {
            return;
        }
        let results = tools.rescorer.score(texts, self.deadline).await;
        for (candidate, result) in candidates.iter_mut().filter(open()).zip(results) {
            candidate.result = Some(result);
        }
    }
}

// === impl Candidate ===

impl Candidate {
    fn event(self, round: u32) -> Rescored {
        let (scored, failure) = match self.result {
            Some(Ok(scored)) => (Some(Box::new(scored)), None),
            Some(Err(failure)) => (None, Some(failure)),
            None => (None, None),
        };
        Rescored { round, candidate: self.number, scored, failure, dropped: self.dropped }
    }
}

/// Why no candidate could be scored, where that is not their own fault.
fn unscored(candidates: &[Candidate]) -> Option<Failure> {
    let tried = || candidates.iter().filter_map(|candidate| candidate.result.as_ref());
    let own = |class| matches!(class, ErrorClass::InvalidRequest | ErrorClass::TooLarge);
    if tried().any(Result::is_ok) {
        return None;
    }
    tried().filter_map(|r| r.as_ref().err()).find(|failure| !own(failure.class)).cloned()
}

/// Compares texts; long ones off the async threads, since that may take tens of milliseconds.
async fn on_text(
    mut candidates: Vec<Candidate>,
    work: impl FnOnce(&mut [Candidate]) + Send + 'static,
) -> Result<Vec<Candidate>, Failure> {
    if candidates.iter().all(|candidate| candidate.text.len() <= INLINE_TEXT) {
        work(&mut candidates);
        return Ok(candidates);
    }
    let work = move || {
        work(&mut candidates);
        candidates
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| failures::worker_failed())
}

fn check(request: &CorrectRequest<Bytes>) -> Result<(), Failure> {
    let bounded = |n: u32, most: u32, field| {
        if (1..=most).contains(&n) {
            return Ok(());
        }
        let detail = format!("is {n}; must be 1 to {most}");
        Err(Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_INVALID, detail).at(field))
    };
    bounded(request.max_rounds, MAX_ROUNDS, "max_rounds")?;
    bounded(request.max_candidates, MAX_CANDIDATES, "max_candidates")
}

fn given_up() -> Failure {
    let detail = "the caller gave the item up";
    Failure::new(ErrorClass::Cancelled, Reason::CALLER_CANCELLED, detail)
}

#[cfg(test)]
mod tests;
