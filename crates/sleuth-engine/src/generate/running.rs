use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sleuth_models::LoadError;
use sleuth_models::backbone::PassError;
use sleuth_models::cpu::{NextTokens, Suffix, SuffixKv};
use tokio::sync::mpsc;

use super::request::{Job, Reply, Task, Wanted};
use super::sampler::{Sampler, allowed, likeliest};
use super::worker::LanguageWorker;
use super::{Candidate, Ended, GeneratorSettings, Sampling, Signals, Stop};
use crate::{EngineError, clock};

/// Serves requests on the calling thread until the queue is closed and all is written.
pub(super) fn run(
    worker: LanguageWorker,
    settings: GeneratorSettings,
    queue: mpsc::Receiver<Job>,
    signals: &Signals,
) {
    let mut decoder = Decoder {
        worker,
        queue,
        next: None,
        running: Vec::new(),
        max_candidates: settings.max_running_candidates.get(),
    };
    while decoder.take_in() {
        if signals.stop.load(Ordering::Acquire) {
            let turned_away = decoder.turn_away();
            signals.turned_away.fetch_add(turned_away, Ordering::AcqRel);
            return;
        }
        decoder.drop_those_given_up();
        decoder.step();
    }
}

/// Requests that are decoded together.
struct Decoder {
    worker: LanguageWorker,
    queue: mpsc::Receiver<Job>,
    /// Taken from the queue, without room yet.
    next: Option<Job>,
    running: Vec<Request>,
    max_candidates: usize,
}

/// A request that is being written.
struct Request {
    writing: Vec<Writing>,
    max_tokens: usize,
    stop: Stop,
    wanted: Wanted,
    deadline: Option<std::time::Instant>,
    reply: Reply<Vec<Candidate>>,
}

/// One candidate so far.
struct Writing {
    /// Of what is given and all tokens but the last; gone once it has ended.
    kv: Option<SuffixKv>,
    sampler: Sampler,
    tokens: Vec<u32>,
    log_probability: f32,
    units: usize,
    ended: Option<Ended>,
}

// === impl Decoder ===

impl Decoder {
    /// Begins what waits and has room; waits for a request where nothing runs. False once there
    /// will be no more.
    fn take_in(&mut self) -> bool {
        loop {
            let job = match self.next.take() {
                Some(job) => job,
                None if self.running.is_empty() => match self.queue.blocking_recv() {
                    Some(job) => job,
                    None => return false,
                },
                None => match self.queue.try_recv() {
                    Ok(job) => job,
                    Err(_) => return true,
                },
            };
            if job.task.is_abandoned() {
                continue;
            }
            if job.deadline.is_some_and(|at| at <= clock::now()) {
                job.task.fail(EngineError::Deadline);
                continue;
            }
            if !self.has_room(job.wanted) {
                self.next = Some(job);
                return true;
            }
            self.begin(job);
        }
    }

    fn has_room(&self, wanted: Wanted) -> bool {
        let running = || self.running.iter().map(|request| request.wanted);
        let candidates: usize = running().map(|w| w.candidates).sum();
        let bytes: u64 = running().map(|w| w.kv_bytes).sum();
        let images: HashMap<[u8; 32], u64> =
            running().chain([wanted]).map(|w| (w.image, w.image_bytes)).collect();
        let images: u64 = images.into_values().sum();
        self.running.is_empty()
            || candidates + wanted.candidates <= self.max_candidates
                && bytes + wanted.kv_bytes + images <= self.worker.max_kv_bytes()
    }

    /// Computes a request's prefix and what it gives, and chooses the first tokens.
    fn begin(&mut self, job: Job) {
        let Job { pixels, image_key, prompt, given, wanted, deadline, task } = job;
        let worker = &mut self.worker;
        let begun = guard(|| {
            let prefix = worker.prefix(&pixels, image_key, &prompt)?;
            worker.given(&prefix, &given)
        });
        let (kv, state) = match begun {
            Ok(begun) => begun,
            Err(error) => return task.fail(error),
        };
        match task {
            Task::Rate { continuations, reply } => {
                let rated = guard(|| Ok(rate(worker, &kv, &state, &continuations)?));
                let rated = rated.and_then(|rated| {
                    let finite = rated.iter().flatten().all(|x| x.is_finite());
                    if finite { Ok(rated) } else { Err(EngineError::NotFinite) }
                });
                drop(reply.send(rated));
            }
            Task::Generate { candidates, max_tokens, sampling, stop, reply } => {
                let next = guard(|| Ok(worker.next(&[&state])));
                match next.and_then(|next| first(&kv, &next, candidates, sampling, &stop)) {
                    Ok(writing) => {
                        let request =
                            Request { writing, max_tokens, stop, wanted, deadline, reply };
                        self.running.extend(request.settle());
                    }
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
        }
    }

    fn drop_those_given_up(&mut self) {
        let now = clock::now();
        self.running = std::mem::take(&mut self.running)
            .into_iter()
            .filter_map(|request| {
                if request.deadline.is_some_and(|at| at <= now) {
                    drop(request.reply.send(Err(EngineError::Deadline)));
                    return None;
                }
                (!request.reply.is_closed()).then_some(request)
            })
            .collect();
    }

    /// One more token of every candidate, in one pass.
    fn step(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let worker = &mut self.worker;
        let running = &mut self.running;
        let done = guard(|| Ok(extend(worker, running)?));
        let next = match done {
            Ok(next) => next,
            Err(error) => {
                for request in self.running.drain(..) {
                    drop(request.reply.send(Err(error)));
                }
                return;
            }
        };
        let mut row = 0;
        let running = std::mem::take(&mut self.running);
        for mut request in running {
            match request.choose(&next, &mut row) {
                Ok(()) => self.running.extend(request.settle()),
                Err(error) => drop(request.reply.send(Err(error))),
            }
        }
    }

    /// Ends everything; how many requests that were.
    fn turn_away(&mut self) -> usize {
        self.queue.close();
        let mut jobs: VecDeque<Job> = self.next.take().into_iter().collect();
        while let Ok(job) = self.queue.try_recv() {
            jobs.push_back(job);
        }
        let count = jobs.len() + self.running.len();
        for job in jobs {
            job.task.fail(EngineError::Draining);
        }
        for request in self.running.drain(..) {
            drop(request.reply.send(Err(EngineError::Draining)));
        }
        let (prefixes, images) = self.worker.cache_stats();
        tracing::debug!(?prefixes, ?images, "the generator stops");
        count
    }
}

// === impl Request ===

impl Request {
    /// Chooses the token that follows each candidate that goes on; `row` counts them.
    fn choose(&mut self, next: &NextTokens, row: &mut usize) -> Result<(), EngineError> {
        // All rows of the request are counted, also where one of them fails.
        let from = *row;
        *row += self.writing.iter().filter(|w| w.ended.is_none()).count();
        let open = self.writing.iter_mut().filter(|w| w.ended.is_none());
        for (writing, at) in open.zip(from..) {
            let logits = allowed(next.logits(at), &self.stop, false);
            let token = writing.sampler.choose(&logits).map_err(|e| failed(&e))?;
            writing.take(token, next, at, &self.stop)?;
        }
        Ok(())
    }

    /// Ends candidates that are long enough. Gives the request back while one goes on, else answers
    /// it.
    fn settle(mut self) -> Option<Self> {
        for writing in &mut self.writing {
            if writing.tokens.len() >= self.max_tokens {
                writing.ended.get_or_insert(Ended::Length);
            }
            if writing.ended.is_some() {
                writing.kv = None;
            }
        }
        if self.writing.iter().any(|w| w.ended.is_none()) {
            return Some(self);
        }
        let candidates = self.writing.into_iter().map(|writing| Candidate {
            tokens: writing.tokens,
            log_probability: writing.log_probability,
            ended: writing.ended.unwrap_or(Ended::Length),
        });
        drop(self.reply.send(Ok(candidates.collect())));
        None
    }
}

// === impl Writing ===

impl Writing {
    fn new(kv: &SuffixKv, sampling: Sampling, candidate: usize) -> Self {
        Self {
            kv: Some(kv.fork()),
            sampler: Sampler::new(sampling, candidate),
            tokens: Vec::new(),
            log_probability: 0.0,
            units: 0,
            ended: None,
        }
    }

    /// Takes the token chosen after row `row`, or ends with it.
    fn take(
        &mut self,
        token: Option<u32>,
        next: &NextTokens,
        row: usize,
        stop: &Stop,
    ) -> Result<(), EngineError> {
        let Some(token) = token.filter(|&token| !stop.is_end(token)) else {
            self.ended = Some(Ended::Stop);
            return Ok(());
        };
        if let Some(bound) = &stop.units
            && (self.tokens.is_empty() || bound.starts.contains(token))
        {
            if self.units == bound.most.get() {
                self.ended = Some(Ended::Stop);
                return Ok(());
            }
            self.units += 1;
        }
        let log_probability = next.log_probability(row, token);
        if !log_probability.is_finite() {
            return Err(EngineError::NotFinite);
        }
        self.tokens.push(token);
        self.log_probability += log_probability;
        Ok(())
    }
}

/// The candidates with their first tokens.
fn first(
    kv: &SuffixKv,
    next: &NextTokens,
    candidates: usize,
    sampling: Sampling,
    stop: &Stop,
) -> Result<Vec<Writing>, EngineError> {
    let logits = allowed(next.logits(0), stop, true);
    let branches = match sampling {
        Sampling::Branch => Some(likeliest(&logits, candidates)),
        Sampling::Greedy | Sampling::Random { .. } => None,
    };
    let count = branches.as_ref().map_or(candidates, Vec::len);
    (0..count)
        .map(|candidate| {
            let mut writing = Writing::new(kv, sampling, candidate);
            let token = match &branches {
                Some(tokens) => tokens.get(candidate).copied(),
                None => writing.sampler.choose(&logits).map_err(|e| failed(&e))?,
            };
            writing.take(token, next, 0, stop)?;
            Ok(writing)
        })
        .collect()
}

/// Takes every candidate that goes on by its last token; what follows each, in order.
fn extend(worker: &mut LanguageWorker, running: &mut [Request]) -> Result<NextTokens, LoadError> {
    let all = running.iter_mut().flat_map(|request| &mut request.writing);
    let mut open: Vec<&mut Writing> = all.filter(|w| w.ended.is_none()).collect();
    let suffixes = open
        .iter_mut()
        .map(|writing| {
            let so_far = writing.kv.take().ok_or(LoadError::Incomplete)?;
            let last = writing.tokens.last().ok_or(LoadError::Incomplete)?;
            Ok(Suffix::Next { so_far, tokens: slice::from_ref(last) })
        })
        .collect::<Result<Vec<_>, LoadError>>()?;
    let done = worker.extend(suffixes)?;
    for (writing, kv) in open.iter_mut().zip(done.suffixes) {
        writing.kv = kv;
    }
    let states: Vec<&[f32]> = done.states.iter().map(Vec::as_slice).collect();
    Ok(worker.next(&states))
}

/// The probability of each continuation's tokens, all in one pass.
fn rate(
    worker: &mut LanguageWorker,
    kv: &SuffixKv,
    state: &[f32],
    continuations: &[Arc<[u32]>],
) -> Result<Vec<Vec<f32>>, LoadError> {
    let suffixes = continuations
        .iter()
        .map(|tokens| {
            // The last token is asked for, and nothing follows it.
            let tokens = tokens.split_last().map_or(&[][..], |(_, before)| before);
            Suffix::Next { so_far: kv.fork(), tokens }
        })
        .collect();
    let states = worker.extend(suffixes)?.states;
    let hidden = state.len();
    let pairs: Vec<(&[f32], u32)> = continuations
        .iter()
        .zip(&states)
        .flat_map(|(tokens, states)| {
            let before = std::iter::once(state).chain(states.chunks_exact(hidden));
            before.zip(tokens.iter().copied())
        })
        .collect();
    let mut rest = worker.log_probabilities(&pairs).into_iter();
    Ok(continuations.iter().map(|tokens| rest.by_ref().take(tokens.len()).collect()).collect())
}

/// Runs a part of the model; its panics and errors cost the requests at hand only.
fn guard<T>(work: impl FnOnce() -> Result<T, PassError>) -> Result<T, EngineError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => {
            tracing::error!("the generating model panicked");
            Err(EngineError::WorkerFailed)
        }
    }
}

fn failed(error: &dyn std::error::Error) -> EngineError {
    tracing::error!(error = %error, "generation failed");
    EngineError::WorkerFailed
}
