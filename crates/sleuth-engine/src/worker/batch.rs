use std::any::Any;

use crate::open::Resumed;
use crate::queue::{Job, Queue};
use crate::{EngineError, ModelFailure, Outcome, Part, Reuse, RewardModel, Task, Work};

/// What the model made of an item.
pub(super) struct Scored {
    pub(super) logits: Vec<f32>,
    pub(super) reuse: Reuse,
}

pub(super) type Verdict = Result<Scored, EngineError>;

/// Runs jobs as one batch, or as several where the device has too little memory; an item that does
/// not fit alone is refused, to come again. Gives one verdict for each job, or why the device is
/// lost.
///
/// What was kept of open items is taken for the run, and put back only where they are scored: an
/// item whose run failed is computed again from its tokens.
pub(super) fn run_jobs<M: RewardModel>(
    model: &mut M,
    queue: &Queue,
    jobs: &[Job],
    begin: &mut dyn FnMut(Work),
) -> Result<Vec<Verdict>, String> {
    let verdicts = run_once(model, queue, jobs, begin)?;
    if !verdicts.iter().all(|verdict| matches!(verdict, Err(Failed::OutOfMemory))) {
        return Ok(verdicts.into_iter().map(|v| v.map_err(|f| f.of(queue))).collect());
    }
    tracing::warn!(items = jobs.len(), "the device is out of memory for a batch");
    model.relieve();
    if let [_] = jobs {
        let again = run_once(model, queue, jobs, begin)?;
        return Ok(again.into_iter().map(|v| v.map_err(|f| f.of(queue))).collect());
    }
    let (first, rest) = jobs.split_at(jobs.len() / 2);
    let mut verdicts = run_jobs(model, queue, first, begin)?;
    verdicts.extend(run_jobs(model, queue, rest, begin)?);
    Ok(verdicts)
}

/// Why an item has no logits.
enum Failed {
    Engine(EngineError),
    OutOfMemory,
}

fn run_once<M: RewardModel>(
    model: &mut M,
    queue: &Queue,
    jobs: &[Job],
    begin: &mut dyn FnMut(Work),
) -> Result<Vec<Result<Scored, Failed>>, String> {
    let (tasks, again): (Vec<Task<M::Kept>>, Vec<usize>) =
        jobs.iter().map(|job| task(model, queue, job)).unzip();
    begin(model.work(&tasks));
    let outcomes = model.score(tasks);
    if outcomes.len() != jobs.len() {
        tracing::error!(
            results = outcomes.len(),
            items = jobs.len(),
            "the model gave another number of results than there were items"
        );
        let failed = || Err(Failed::Engine(EngineError::WorkerFailed));
        return Ok(jobs.iter().map(|_| failed()).collect());
    }
    for outcome in &outcomes {
        if let Err(ModelFailure::DeviceLost(why)) = outcome {
            return Err(why.clone());
        }
    }
    let items = outcomes.into_iter().zip(jobs.iter().zip(again));
    Ok(items
        .map(|(outcome, (job, again))| {
            let Outcome { mut logits, kept, reuse } = check(outcome, job, again)?;
            if let Some(id) = job.open {
                let bytes = kept.as_ref().map_or(0, M::kept_bytes);
                let kept = kept.map(|kept| Box::new(kept) as Box<dyn Any + Send>);
                queue.put_item(id, &job.prepared.response, kept, bytes);
            }
            logits.drain(..again);
            Ok(Scored { logits, reuse })
        })
        .collect())
}

/// A job as the model takes it, and how many tokens before its own have to be computed again.
fn task<M: RewardModel>(model: &mut M, queue: &Queue, job: &Job) -> (Task<M::Kept>, usize) {
    let mut prepared = job.prepared.clone();
    let mut again = 0;
    let part = match job.open.and_then(|id| queue.resume_item(id)) {
        None if job.open.is_none() => Part::Whole,
        None => Part::First,
        Some(Resumed { tokens: before, kept }) => {
            let kept = kept.and_then(|kept| kept.downcast::<M::Kept>().ok());
            let kept = kept.and_then(|kept| model.take_over(*kept, &prepared));
            if kept.is_none() && !before.is_empty() {
                again = before.len();
                prepared.response = [before.as_slice(), &*job.prepared.response].concat().into();
            }
            kept.map_or(Part::First, Part::Next)
        }
    };
    (Task { prepared, part }, again)
}

fn check<K>(
    outcome: Result<Outcome<K>, ModelFailure>,
    job: &Job,
    again: usize,
) -> Result<Outcome<K>, Failed> {
    let tokens = again + job.prepared.response.len();
    Err(Failed::Engine(match outcome {
        Ok(outcome) if outcome.logits.len() != tokens => {
            tracing::error!(
                logits = outcome.logits.len(),
                tokens,
                "the model gave another number of logits than there were tokens"
            );
            EngineError::WorkerFailed
        }
        Ok(outcome) if outcome.logits.iter().all(|x| x.is_finite()) => return Ok(outcome),
        Ok(_) | Err(ModelFailure::NotFinite) => EngineError::NotFinite,
        Err(ModelFailure::Forward(error) | ModelFailure::DeviceLost(error)) => {
            tracing::error!(error, "the forward pass failed");
            EngineError::WorkerFailed
        }
        Err(ModelFailure::OutOfMemory) => return Err(Failed::OutOfMemory),
    }))
}

impl Failed {
    /// As the caller is told: an item for which memory was short may come again.
    fn of(self, queue: &Queue) -> EngineError {
        match self {
            Self::Engine(error) => error,
            Self::OutOfMemory => queue.refuse(),
        }
    }
}
