use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sleuth_telemetry::traces::BatchTrace;

use crate::cost::Work;
use crate::open::{OpenId, Resumed};
use crate::policy::{Batch, Step};
use crate::queue::{Job, Queue, Ran, Reply, answer};
use crate::{
    EngineError, EngineScores, Health, Memory, ModelFailure, Outcome, Part, Reuse, RewardModel,
    Task, clock,
};

/// Runs batches on the calling thread until the queue is closed and empty.
pub(crate) fn run(mut model: impl RewardModel, queue: &Arc<Queue>, max_panics_in_a_row: u32) {
    let mut panics_in_a_row = 0;
    let mut memory = Memory::default();
    let note = |memory: &mut Memory, now| queue.note_memory(std::mem::replace(memory, now), now);
    note(&mut memory, model.memory());
    while let Some(Step { batch, expired }) = queue.next() {
        for job in expired {
            answer(job, Err(EngineError::Deadline));
        }
        let Some(batch) = batch else { continue };
        let done = compute(&mut model, queue, batch);
        note(&mut memory, model.memory());
        // Told before the items are, so that a caller who has its answer sees what it did.
        if done.panicked {
            panics_in_a_row += 1;
            if panics_in_a_row >= max_panics_in_a_row {
                queue.set_health(Health::Unhealthy);
            }
        } else {
            panics_in_a_row = 0;
            queue.set_health(Health::Healthy);
        }
        settle(queue, done);
    }
}

/// A batch that ran.
struct Done {
    waiters: Vec<Waiter>,
    /// One for each waiter.
    verdicts: Vec<Result<Scored, EngineError>>,
    ran: Ran,
    predicted: Duration,
    panicked: bool,
}

/// A caller that waits for its item of a running batch.
struct Waiter {
    reply: Reply,
    queue: Duration,
    open: Option<OpenId>,
    /// Tokens to score, and those before them that only had to be computed again.
    tokens: Arc<[u32]>,
    again: usize,
}

struct Scored {
    logits: Vec<f32>,
    reuse: Reuse,
}

type Outcomes<K> = Vec<Result<Outcome<K>, ModelFailure>>;

fn compute<M: RewardModel>(model: &mut M, queue: &Queue, batch: Batch<Job>) -> Done {
    let Batch { id, items, cost, .. } = batch;
    let started = clock::now();
    let (tasks, waiters) = split::<M::Kept>(queue, items, started);
    let work = model.work(&tasks);
    let predicted = queue.begin(id, &work);
    let result = catch_unwind(AssertUnwindSafe(|| model.score(tasks)));
    let took = clock::now().saturating_duration_since(started);
    let panicked = result.is_err();
    let verdicts = if let Ok(outcomes) = result {
        keep::<M>(queue, outcomes, &waiters)
    } else {
        tracing::error!(items = waiters.len(), tokens = cost.tokens, "the model panicked");
        waiters.iter().map(|_| Err(EngineError::WorkerFailed)).collect()
    };
    tracing::debug!(items = waiters.len(), tokens = cost.tokens, ?predicted, ?took, "ran a batch");
    // What a failed batch took says nothing of the next.
    let whole = verdicts.iter().all(Result::is_ok);
    let work: Option<Work> = whole.then_some(work);
    let phases = model.take_phases();
    let (items, tokens) = (waiters.len(), cost.tokens);
    let ran = Ran { id, items, tokens, started, took, phases, work };
    Done { waiters, verdicts, ran, predicted, panicked }
}

/// Counts a batch and answers its callers, in this order: who has an answer finds it counted.
fn settle(queue: &Queue, done: Done) {
    let Done { waiters, verdicts, ran, predicted, panicked } = done;
    let scored = verdicts.iter().filter(|v| v.is_ok()).count() as u64;
    let failed = verdicts.len() as u64 - scored;
    let abandoned = waiters.iter().filter(|w| w.reply.is_closed()).count() as u64;
    queue.finish(&ran, |stats| {
        stats.scored += scored;
        stats.failed += failed;
        stats.abandoned += abandoned;
        stats.panics += u64::from(panicked);
        stats.predicted += predicted;
        for waiter in &waiters {
            stats.measured.wait.count(waiter.queue.as_secs_f64());
        }
    });
    let Ran { items, tokens, started, took, phases, .. } = ran;
    let phases = phases.named().to_vec();
    let batch = Arc::new(BatchTrace::new(started, took, phases, items, tokens));
    for (waiter, verdict) in waiters.into_iter().zip(verdicts) {
        let Waiter { reply, queue, .. } = waiter;
        let scores = verdict.map(|Scored { logits, reuse }| EngineScores {
            logits,
            queue,
            compute: ran.took,
            predicted,
            reuse,
            batch: Arc::clone(&batch),
        });
        // A caller that is gone was counted above.
        let _ = reply.send(scores);
    }
}

fn split<K: Send + 'static>(
    queue: &Queue,
    batch: Vec<Job>,
    started: Instant,
) -> (Vec<Task<K>>, Vec<Waiter>) {
    batch
        .into_iter()
        .map(|Job { mut prepared, open, submitted, reply }| {
            let tokens = Arc::clone(&prepared.response);
            let mut again = 0;
            let part = match open.and_then(|id| queue.resume_item(id)) {
                None if open.is_none() => Part::Whole,
                None => Part::First,
                Some(Resumed { tokens: before, kept }) => {
                    let kept = kept.and_then(|kept| kept.downcast::<K>().ok());
                    if kept.is_none() && !before.is_empty() {
                        again = before.len();
                        prepared.response = [before.as_slice(), &*tokens].concat().into();
                    }
                    kept.map_or(Part::First, |kept| Part::Next(*kept))
                }
            };
            let queue = started.saturating_duration_since(submitted);
            (Task { prepared, part }, Waiter { reply, queue, open, tokens, again })
        })
        .unzip()
}

/// Checks a batch's outcomes, and puts away what is kept of open items.
fn keep<M: RewardModel>(
    queue: &Queue,
    outcomes: Outcomes<M::Kept>,
    waiters: &[Waiter],
) -> Vec<Result<Scored, EngineError>> {
    if outcomes.len() != waiters.len() {
        tracing::error!(
            results = outcomes.len(),
            items = waiters.len(),
            "the model gave another number of results than there were items"
        );
        return waiters.iter().map(|_| Err(EngineError::WorkerFailed)).collect();
    }
    let pairs = outcomes.into_iter().zip(waiters);
    pairs
        .map(|(outcome, waiter)| {
            let Outcome { mut logits, kept, reuse } = check(outcome, waiter)?;
            if let Some(id) = waiter.open {
                let bytes = kept.as_ref().map_or(0, M::kept_bytes);
                let kept = kept.map(|kept| Box::new(kept) as Box<dyn Any + Send>);
                queue.put_item(id, &waiter.tokens, kept, bytes);
            }
            logits.drain(..waiter.again);
            Ok(Scored { logits, reuse })
        })
        .collect()
}

fn check<K>(
    outcome: Result<Outcome<K>, ModelFailure>,
    waiter: &Waiter,
) -> Result<Outcome<K>, EngineError> {
    let tokens = waiter.again + waiter.tokens.len();
    match outcome {
        Ok(outcome) if outcome.logits.len() != tokens => {
            tracing::error!(
                logits = outcome.logits.len(),
                tokens,
                "the model gave another number of logits than there were tokens"
            );
            Err(EngineError::WorkerFailed)
        }
        Ok(outcome) if outcome.logits.iter().all(|x| x.is_finite()) => Ok(outcome),
        Ok(_) | Err(ModelFailure::NotFinite) => Err(EngineError::NotFinite),
        Err(ModelFailure::Forward(error)) => {
            tracing::error!(error, "the forward pass failed");
            Err(EngineError::WorkerFailed)
        }
    }
}
