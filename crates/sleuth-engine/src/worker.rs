use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sleuth_core::Prepared;

use crate::policy::Step;
use crate::queue::{Job, Queue, Reply, answer};
use crate::{EngineError, EngineScores, Health, ModelFailure, RewardModel, clock};

/// Runs batches on the calling thread until the queue is closed and empty.
pub(crate) fn run(mut model: impl RewardModel, queue: &Arc<Queue>, max_panics_in_a_row: u32) {
    let mut panics_in_a_row = 0;
    while let Some(Step { batch, tokens, expired }) = queue.next() {
        for job in expired {
            answer(job, Err(EngineError::Deadline));
        }
        if batch.is_empty() {
            continue;
        }
        let done = compute(&mut model, batch, tokens);
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
    verdicts: Vec<Result<Vec<f32>, EngineError>>,
    tokens: usize,
    compute: Duration,
    panicked: bool,
}

/// A caller that waits for its item of a running batch.
struct Waiter {
    reply: Reply,
    queue: Duration,
    response_tokens: usize,
}

type Logits = Result<Vec<f32>, ModelFailure>;

fn compute(model: &mut impl RewardModel, batch: Vec<Job>, tokens: usize) -> Done {
    let started = clock::now();
    let (items, waiters) = split(batch, started);
    let result = catch_unwind(AssertUnwindSafe(|| model.score(&items)));
    let compute = clock::now().saturating_duration_since(started);
    let panicked = result.is_err();
    let verdicts = if let Ok(results) = result {
        verdicts(results, &waiters)
    } else {
        tracing::error!(items = items.len(), tokens, "the model panicked");
        vec![Err(EngineError::WorkerFailed); waiters.len()]
    };
    tracing::debug!(items = items.len(), tokens, ?compute, "ran a batch");
    Done { waiters, verdicts, tokens, compute, panicked }
}

/// Counts a batch and answers its callers, in this order: who has an answer finds it counted.
fn settle(queue: &Queue, done: Done) {
    let Done { waiters, verdicts, tokens, compute, panicked } = done;
    let scored = verdicts.iter().filter(|v| v.is_ok()).count() as u64;
    let failed = verdicts.len() as u64 - scored;
    let abandoned = waiters.iter().filter(|w| w.reply.is_closed()).count() as u64;
    queue.finish(tokens, compute, |stats| {
        stats.scored += scored;
        stats.failed += failed;
        stats.abandoned += abandoned;
        stats.panics += u64::from(panicked);
    });
    for (waiter, verdict) in waiters.into_iter().zip(verdicts) {
        let Waiter { reply, queue, .. } = waiter;
        // A caller that is gone was counted above.
        let _ = reply.send(verdict.map(|logits| EngineScores { logits, queue, compute }));
    }
}

fn split(batch: Vec<Job>, started: Instant) -> (Vec<Prepared>, Vec<Waiter>) {
    batch
        .into_iter()
        .map(|Job { prepared, submitted, reply }| {
            let waiter = Waiter {
                reply,
                queue: started.saturating_duration_since(submitted),
                response_tokens: prepared.response.len(),
            };
            (prepared, waiter)
        })
        .unzip()
}

/// Checks a batch's results: as many as items, each with one finite logit per token.
fn verdicts(results: Vec<Logits>, waiters: &[Waiter]) -> Vec<Result<Vec<f32>, EngineError>> {
    if results.len() != waiters.len() {
        tracing::error!(
            results = results.len(),
            items = waiters.len(),
            "the model gave another number of results than there were items"
        );
        return vec![Err(EngineError::WorkerFailed); waiters.len()];
    }
    results.into_iter().zip(waiters).map(|(result, waiter)| verdict(result, waiter)).collect()
}

fn verdict(result: Logits, waiter: &Waiter) -> Result<Vec<f32>, EngineError> {
    match result {
        Ok(logits) if logits.len() != waiter.response_tokens => {
            tracing::error!(
                logits = logits.len(),
                tokens = waiter.response_tokens,
                "the model gave another number of logits than there were tokens"
            );
            Err(EngineError::WorkerFailed)
        }
        Ok(logits) if logits.iter().all(|x| x.is_finite()) => Ok(logits),
        Ok(_) | Err(ModelFailure::NotFinite) => Err(EngineError::NotFinite),
        Err(ModelFailure::Forward(error)) => {
            tracing::error!(error, "the forward pass failed");
            Err(EngineError::WorkerFailed)
        }
    }
}
