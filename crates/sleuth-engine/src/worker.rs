mod batch;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sleuth_telemetry::traces::BatchTrace;

use self::batch::{Scored, Verdict, run_jobs};
use crate::policy::{Batch, Step};
use crate::queue::{Job, Queue, Ran, Taken, answer};
use crate::{EngineError, EngineScores, Health, Memory, RewardModel, clock};

/// Runs batches on the calling thread until the queue is closed and empty, or the device is lost.
pub(crate) fn run(mut model: impl RewardModel, queue: &Arc<Queue>, max_panics_in_a_row: u32) {
    let mut panics_in_a_row = 0;
    let mut memory = Memory::default();
    let note = |memory: &mut Memory, now| queue.note_memory(std::mem::replace(memory, now), now);
    note(&mut memory, model.memory());
    while let Some(Taken { step: Step { batch, expired }, losses }) = queue.next() {
        for job in expired {
            answer(job, Err(EngineError::Deadline));
        }
        let Some(batch) = batch else { continue };
        let done = match compute(&mut model, queue, batch) {
            Ok(done) => done,
            Err(lost) => {
                let Lost { batch, why } = *lost;
                tracing::error!(why, items = batch.items.len(), "a device is lost");
                note(&mut memory, Memory { device: model.memory().device, ..Memory::default() });
                queue.hand_over(batch, losses + 1);
                return;
            }
        };
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
    jobs: Vec<Job>,
    /// One for each job.
    verdicts: Vec<Verdict>,
    ran: Ran,
    predicted: Duration,
    panicked: bool,
}

/// A batch whose device was lost under it.
struct Lost {
    batch: Batch<Job>,
    why: String,
}

fn compute<M: RewardModel>(
    model: &mut M,
    queue: &Queue,
    batch: Batch<Job>,
) -> Result<Done, Box<Lost>> {
    let started = clock::now();
    let mut begun = None;
    let result = catch_unwind(AssertUnwindSafe(|| {
        run_jobs(model, queue, &batch.items, &mut |work| {
            begun.get_or_insert_with(|| (queue.begin(batch.id, &work), work));
        })
    }));
    let took = clock::now().saturating_duration_since(started);
    let panicked = result.is_err();
    let verdicts = match result {
        Ok(Ok(verdicts)) => verdicts,
        Ok(Err(why)) => return Err(Box::new(Lost { batch, why })),
        Err(_) => {
            let tokens = batch.cost.tokens;
            tracing::error!(items = batch.items.len(), tokens, "the model panicked");
            batch.items.iter().map(|_| Err(EngineError::WorkerFailed)).collect()
        }
    };
    let Batch { id, items: jobs, cost, .. } = batch;
    let (predicted, work) = begun.map_or((Duration::ZERO, None), |(p, work)| (p, Some(work)));
    tracing::debug!(items = jobs.len(), tokens = cost.tokens, ?predicted, ?took, "ran a batch");
    // What a failed batch took says nothing of the next.
    let work = work.filter(|_| verdicts.iter().all(Result::is_ok));
    let phases = model.take_phases();
    let (items, tokens) = (jobs.len(), cost.tokens);
    let ran = Ran { id, items, tokens, started, took, phases, work };
    Ok(Done { jobs, verdicts, ran, predicted, panicked })
}

/// Counts a batch and answers its callers, in this order: who has an answer finds it counted.
fn settle(queue: &Queue, done: Done) {
    let Done { jobs, verdicts, ran, predicted, .. } = done;
    let scored = verdicts.iter().filter(|v| v.is_ok()).count() as u64;
    let failed = verdicts.len() as u64 - scored;
    let abandoned = jobs.iter().filter(|job| job.reply.is_closed()).count() as u64;
    let waited = |job: &Job, started: Instant| started.saturating_duration_since(job.submitted);
    queue.finish(&ran, |stats| {
        stats.scored += scored;
        stats.failed += failed;
        stats.abandoned += abandoned;
        stats.panics += u64::from(done.panicked);
        stats.predicted += predicted;
        for job in &jobs {
            stats.measured.wait.count(waited(job, ran.started).as_secs_f64());
        }
    });
    let Ran { items, tokens, started, took, phases, .. } = ran;
    let phases = phases.named().to_vec();
    let batch = Arc::new(BatchTrace::new(started, took, phases, items, tokens));
    for (job, verdict) in jobs.into_iter().zip(verdicts) {
        let queue = waited(&job, started);
        let scores = verdict.map(|Scored { logits, reuse }| EngineScores {
            logits,
            queue,
            compute: ran.took,
            predicted,
            reuse,
            batch: Arc::clone(&batch),
        });
        // A caller that is gone was counted above.
        answer(job, scores);
    }
}
