use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sleuth_core::Prepared;
use tokio::sync::{oneshot, watch};

use crate::cost::{CostModel, Work};
use crate::model::{ItemShape, ModelFacts, Prefixes};
use crate::open::{OpenId, OpenStore, Resumed};
use crate::policy::{
    Batch, BatchId, Claim, Cost, GroupKey, Policy, Predicted, Refusal, Request, Stage, Step,
    Tenant, Ticket,
};
use crate::stats::{EngineStats, Health};
use crate::{EngineError, EngineScores, EngineSettings, KvCost, Memory, Phases, Terms, clock};

/// The verdict on one item, as it goes back to its caller.
pub(crate) type Reply = oneshot::Sender<Result<EngineScores, EngineError>>;

/// An item that waits.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) prepared: Prepared,
    /// Of an item that is being generated.
    pub(crate) open: Option<OpenId>,
    pub(crate) submitted: Instant,
    pub(crate) reply: Reply,
}

/// What room is wanted for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) key: GroupKey,
    /// Tokens to score now, and those that were scored before.
    pub(crate) tokens: usize,
    pub(crate) past: usize,
    pub(crate) stage: Stage,
    pub(crate) terms: Terms,
}

/// The one queue between all callers and all workers.
pub(crate) struct Queue {
    state: Mutex<State>,
    open: Mutex<OpenStore>,
    changed: Condvar,
    health: watch::Sender<Health>,
    prefixes: Arc<dyn Prefixes>,
    kv: KvCost,
}

#[derive(Debug)]
struct State {
    policy: Policy<Job>,
    phase: Phase,
    stats: EngineStats,
    cost: CostModel,
    /// When each running batch should be done.
    ends: HashMap<BatchId, Instant>,
    workers: usize,
    /// Running batches whose devices were lost: the next free worker takes them.
    orphans: VecDeque<Orphan>,
}

/// A batch that lost its device, and how many it has lost so far.
#[derive(Debug)]
struct Orphan {
    batch: Batch<Job>,
    losses: u32,
}

/// What a worker is to do.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) step: Step<Job>,
    /// Devices that the batch has lost before.
    pub(crate) losses: u32,
}

/// What the engine expects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Until all that waits and runs now is done, per worker.
    pub wait: Duration,
    /// How long the item itself keeps a worker busy, its prefix included if it has to pay for it.
    pub item: Duration,
}

/// What an engine has to do and holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineLoad {
    /// Until all that waits and runs is done, per worker.
    pub wait: Duration,
    /// Items that wait, have room reserved, or run.
    pub items: usize,
    /// Bytes of keys and values: of prefixes held, of what runs, and of open items.
    pub kv_bytes: u64,
    /// The most bytes of prefixes' keys and values.
    pub kv_limit_bytes: u64,
    /// Changes whenever a prefix came or left.
    pub prefix_changes: u64,
    /// Seconds that a batch takes as such.
    pub batch_seconds: f64,
    /// Seconds that a worker takes for an image that it has not seen.
    pub image_seconds: f64,
    /// Seconds that it takes for the prefix of such an image, with a prompt of [`USUAL_PROMPT`]
    /// tokens: the image included.
    pub prefix_seconds: f64,
    /// Seconds that it takes for a token of a response of [`USUAL_RESPONSE`] tokens.
    pub response_token_seconds: f64,
}

/// Tokens of the prompt for which [`EngineLoad::prefix_seconds`] stands.
pub const USUAL_PROMPT: usize = 16;
/// Tokens of the response for which [`EngineLoad::response_token_seconds`] stands.
pub const USUAL_RESPONSE: usize = 64;

/// Why a caller takes an item back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withdrawal {
    /// Nobody waits for it any more.
    Dropped,
    /// Its deadline passed while it waited.
    Late,
}

/// What a worker reports of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    pub(crate) id: BatchId,
    pub(crate) items: usize,
    pub(crate) tokens: usize,
    pub(crate) started: Instant,
    pub(crate) took: Duration,
    pub(crate) phases: Phases,
    /// What it computed, unless it failed.
    pub(crate) work: Option<Work>,
}

/// No item counts for more in the forecast.
const LONGEST_ITEM: Duration = Duration::from_hours(1);
/// Bounds of what a refused caller is told.
const SHORTEST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_mins(1);
/// Devices that a batch may lose: it may be what kills them.
const MAX_LOSSES: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Takes new work.
    Open,
    /// Finishes what it has.
    Draining,
    /// Turns away what has not begun.
    Stopping,
}

// === impl Queue ===

impl Queue {
    pub(crate) fn new(settings: &EngineSettings, facts: &ModelFacts, workers: usize) -> Self {
        let state = State {
            policy: Policy::new(settings.limits(facts)),
            phase: Phase::Open,
            stats: EngineStats { workers, ..EngineStats::default() },
            ends: HashMap::new(),
            cost: CostModel::new(facts.gflop_per_second),
            workers,
            orphans: VecDeque::new(),
        };
        let (health, _) = watch::channel(Health::Healthy);
        Self {
            state: Mutex::new(state),
            open: Mutex::new(OpenStore::new(settings.max_open_items, settings.max_open_bytes)),
            changed: Condvar::new(),
            health,
            prefixes: Arc::clone(&facts.prefixes),
            kv: facts.kv,
        }
    }

    /// Fails where an item would be refused whatever it is.
    pub(crate) fn check_room(&self) -> Result<(), EngineError> {
        let mut state = self.lock();
        state.check_open()?;
        if state.policy.is_full() { Err(state.refuse()) } else { Ok(()) }
    }

    pub(crate) fn claim(&self, wanted: Wanted) -> Result<Claim, EngineError> {
        let Wanted { key, tokens, past, stage, terms } = wanted;
        let kv_bytes = match stage {
            Stage::Whole => self.kv.whole(tokens),
            // All of it: what was kept may have to be computed again.
            Stage::Open => self.kv.kept(past + tokens),
        };
        let shape = ItemShape { prompt: key.prompt.len(), tokens, past };
        let works = self.works(&key, &shape);
        let mut state = self.lock();
        state.check_open()?;
        let wait = state.wait();
        let request = Request {
            key,
            cost: Cost { tokens, kv_bytes },
            predicted: state.predicted(&works),
            stage,
            tenant: Tenant(terms.tenant),
            priority: terms.priority,
        };
        let claim = state.policy.claim(request).map_err(|refusal| match refusal {
            Refusal::Full => state.refuse(),
            Refusal::TooLarge => EngineError::TooLarge,
        })?;
        state.stats.measured.predicted_wait.count(wait.as_secs_f64());
        Ok(claim)
    }

    pub(crate) fn release(&self, claim: Claim) {
        self.lock().policy.release(claim);
        // A draining worker may wait for this claim only.
        self.changed.notify_all();
    }

    /// Puts a job into its room. `None` where the engine stopped meanwhile: the job was answered.
    pub(crate) fn enqueue(
        &self,
        claim: Claim,
        job: Job,
        deadline: Option<Instant>,
    ) -> Option<Ticket> {
        self.enqueue_together(vec![(claim, job)], deadline).pop().flatten()
    }

    /// Puts jobs into their rooms at once: no batch forms between them.
    pub(crate) fn enqueue_together(
        &self,
        jobs: Vec<(Claim, Job)>,
        deadline: Option<Instant>,
    ) -> Vec<Option<Ticket>> {
        let mut refused = Vec::new();
        let mut state = self.lock();
        let tickets = jobs
            .into_iter()
            .map(|(claim, job)| {
                if state.phase == Phase::Stopping {
                    state.policy.release(claim);
                    state.stats.drained += 1;
                    refused.push(job);
                    return None;
                }
                Some(state.policy.enqueue(claim, job, deadline, clock::now()))
            })
            .collect();
        drop(state);
        if refused.is_empty() {
            self.changed.notify_one();
        } else {
            self.changed.notify_all();
        }
        for job in refused {
            answer(job, Err(EngineError::Draining));
        }
        tickets
    }

    /// Takes an item whose caller is gone out of the queue; false where it had begun.
    pub(crate) fn withdraw(&self, ticket: Ticket, why: Withdrawal) -> bool {
        let mut state = self.lock();
        let job = state.policy.cancel(ticket);
        let waited = job.is_some();
        match why {
            Withdrawal::Dropped => state.stats.cancelled += u64::from(job.is_some()),
            Withdrawal::Late => state.stats.expired += u64::from(job.is_some()),
        }
        drop(state);
        self.changed.notify_all();
        waited
    }

    /// Waits for work; `None` once the engine is closed and everything taken in has begun.
    pub(crate) fn next(&self) -> Option<Taken> {
        let mut state = self.lock();
        loop {
            if let Some(Orphan { batch, losses }) = state.orphans.pop_front() {
                let step = Step { batch: Some(batch), expired: Vec::new() };
                return Some(Taken { step, losses });
            }
            if !state.policy.is_idle() {
                let resident =
                    |key: &GroupKey| self.prefixes.is_resident(&key.image_key, &key.prompt);
                let step = state.policy.next(clock::now(), &resident);
                state.stats.expired += step.expired.len() as u64;
                if let Some(batch) = &step.batch {
                    state.stats.begin(batch);
                }
                if step.batch.is_some() || !step.expired.is_empty() {
                    if !state.policy.is_idle() {
                        self.changed.notify_one();
                    }
                    return Some(Taken { step, losses: 0 });
                }
            }
            match state.phase {
                Phase::Stopping => return None,
                // What runs may come back from a lost device.
                Phase::Draining if state.policy.items() + state.stats.running_items == 0 => {
                    return None;
                }
                Phase::Draining | Phase::Open => {}
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes back a batch whose device was lost; the worker that had it ends. Another worker runs
    /// it, unless it has lost too many, or was the last one's: then its items fail.
    pub(crate) fn hand_over(&self, batch: Batch<Job>, losses: u32) {
        let mut state = self.lock();
        state.ends.remove(&batch.id);
        state.stats.devices_lost += 1;
        let last = state.workers == 1;
        let failed = if last || losses >= MAX_LOSSES {
            state.give_up(vec![Orphan { batch, losses }])
        } else {
            state.orphans.push_back(Orphan { batch, losses });
            Vec::new()
        };
        drop(state);
        self.changed.notify_all();
        fail(failed);
        if last {
            self.stop();
        }
    }

    /// What a caller is told whose item does not fit now.
    pub(crate) fn refuse(&self) -> EngineError {
        self.lock().refuse()
    }

    /// What a batch of this work, which begins now, should take.
    pub(crate) fn begin(&self, id: BatchId, work: &Work) -> Duration {
        let mut state = self.lock();
        let predicted = state.cost.predict(work);
        let end = clock::now().checked_add(predicted);
        state.ends.extend(end.map(|end| (id, end)));
        predicted
    }

    /// Takes note of what workers hold: of what one of them held before, and holds now.
    pub(crate) fn note_memory(&self, before: Memory, now: Memory) {
        if before != now {
            let memory = &mut self.lock().stats.memory;
            (memory.device, memory.weights) = (now.device, now.weights);
            memory.workspace = (memory.workspace + now.workspace).saturating_sub(before.workspace);
        }
    }

    /// How long an item would wait, and what it would take.
    pub(crate) fn forecast(&self, key: &GroupKey, shape: &ItemShape) -> Forecast {
        let works = self.works(key, shape);
        let state = self.lock();
        let Predicted { own, mut prefix } = state.predicted(&works);
        if state.policy.is_awaited(key) {
            prefix = Duration::ZERO;
        }
        Forecast { wait: state.wait(), item: own.saturating_add(prefix) }
    }

    /// Work of an item's own rows, and of its prefix where that is not resident.
    fn works(&self, key: &GroupKey, shape: &ItemShape) -> (Work, Option<Work>) {
        let resident = self.prefixes.is_resident(&key.image_key, &key.prompt);
        let prefix =
            (!resident).then(|| self.prefixes.prefix_work(&key.image_key, key.prompt.len()));
        (self.prefixes.item_work(shape), prefix)
    }

    /// Takes note of a finished batch, however it ended.
    pub(crate) fn finish(&self, ran: &Ran, count: impl FnOnce(&mut EngineStats)) {
        let mut state = self.lock();
        state.policy.finish(ran.id);
        state.stats.end(ran);
        count(&mut state.stats);
        state.ends.remove(&ran.id);
        if let Some(work) = &ran.work {
            state.cost.learn(work, ran.took);
        }
        drop(state);
        // Its groups may run anywhere now.
        self.changed.notify_all();
    }

    /// Takes no more work; what is in runs on.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Draining;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Turns away everything that has not begun; says how many items that were.
    pub(crate) fn stop(&self) -> usize {
        let mut state = self.lock();
        state.phase = Phase::Stopping;
        let jobs = state.policy.drain();
        state.stats.drained += jobs.len() as u64;
        drop(state);
        self.changed.notify_all();
        let turned_away = jobs.len();
        for job in jobs {
            answer(job, Err(EngineError::Draining));
        }
        turned_away
    }

    pub(crate) fn stats(&self) -> EngineStats {
        let open = self.lock_open().stats();
        let state = self.lock();
        EngineStats {
            queued_items: state.policy.items(),
            queued_tokens: state.policy.tokens(),
            running_tokens: state.policy.running().tokens,
            running_kv_bytes: state.policy.running().kv_bytes,
            prediction_error: state.cost.error(),
            open,
            prefix_cache: self.prefixes.prefix_stats(),
            vision_cache: self.prefixes.vision_stats(),
            ..state.stats.clone()
        }
    }

    pub(crate) fn load(&self) -> EngineLoad {
        let open = self.lock_open().stats().bytes;
        let prefixes = self.prefixes.prefix_stats();
        let usual = ItemShape { prompt: USUAL_PROMPT, tokens: USUAL_RESPONSE, past: 0 };
        let item = self.prefixes.item_work(&usual);
        // No image has this key.
        let prefix = self.prefixes.prefix_work(&[0; 32], USUAL_PROMPT);
        let image = Work { vision: prefix.vision, ..Work::default() };
        let state = self.lock();
        EngineLoad {
            wait: state.wait(),
            items: state.policy.items() + state.stats.running_items,
            kv_bytes: prefixes.resident_bytes + state.policy.running().kv_bytes + open,
            kv_limit_bytes: prefixes.limit_bytes,
            prefix_changes: prefixes.misses + prefixes.evictions + prefixes.rejected,
            batch_seconds: state.cost.predict(&Work::default()).as_secs_f64(),
            image_seconds: state.cost.marginal(&image).as_secs_f64(),
            prefix_seconds: state.cost.marginal(&prefix).as_secs_f64(),
            response_token_seconds: state.cost.marginal(&item).as_secs_f64()
                / USUAL_RESPONSE as f64,
        }
    }

    /// How long a new item would wait.
    pub(crate) fn wait(&self) -> Duration {
        self.lock().wait()
    }

    /// How long the work that waits and runs should take.
    pub(crate) fn backlog(&self) -> Duration {
        self.lock().backlog()
    }

    pub(crate) fn open_item(&self) -> Result<OpenId, EngineError> {
        // First: an item that is refused must not stay in the store.
        self.lock().check_open()?;
        let id = self.lock_open().open();
        id.ok_or_else(|| self.lock().refuse())
    }

    pub(crate) fn close_item(&self, id: OpenId) {
        self.lock_open().close(id);
    }

    pub(crate) fn resume_item(&self, id: OpenId) -> Option<Resumed> {
        self.lock_open().resume(id)
    }

    pub(crate) fn put_item(
        &self,
        id: OpenId,
        tokens: &[u32],
        kept: Option<Box<dyn std::any::Any + Send>>,
        bytes: u64,
    ) {
        self.lock_open().put(id, tokens, kept, bytes);
    }

    pub(crate) fn set_health(&self, health: Health) {
        self.health.send_if_modified(|old| std::mem::replace(old, health) != health);
    }

    /// A worker has ended; the engine has with the last one.
    pub(crate) fn worker_ended(&self) {
        let mut state = self.lock();
        state.workers -= 1;
        let last = state.workers == 0;
        let failed = if last { state.give_up(Vec::new()) } else { Vec::new() };
        drop(state);
        fail(failed);
        if last {
            self.set_health(Health::Stopped);
        }
    }

    pub(crate) fn watch_health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Nothing panics while the lock is held, so a poisoned state is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_open(&self) -> MutexGuard<'_, OpenStore> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("kv", &self.kv).finish_non_exhaustive()
    }
}

// === impl State ===

impl State {
    fn check_open(&self) -> Result<(), EngineError> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Draining | Phase::Stopping => Err(EngineError::Draining),
        }
    }

    /// Ends batches that nobody will run, with all orphans if no worker is left; their jobs are to be
    /// answered.
    fn give_up(&mut self, mut batches: Vec<Orphan>) -> Vec<Job> {
        if self.workers <= 1 {
            batches.extend(self.orphans.drain(..));
        }
        for Orphan { batch, .. } in &batches {
            self.policy.finish(batch.id);
            self.stats.running_items -= batch.items.len();
            self.stats.failed += batch.items.len() as u64;
        }
        batches.into_iter().flat_map(|orphan| orphan.batch.items).collect()
    }

    fn refuse(&mut self) -> EngineError {
        self.stats.refused += 1;
        EngineError::QueueFull { retry_after: self.backlog() }
    }

    fn predicted(&self, (own, prefix): &(Work, Option<Work>)) -> Predicted {
        let prefix = prefix.as_ref().map_or(Duration::ZERO, |work| self.cost.marginal(work));
        // Bounded, so that sums stay far from what a duration can hold.
        let bounded = |d: Duration| d.min(LONGEST_ITEM);
        Predicted { own: bounded(self.cost.marginal(own)), prefix: bounded(prefix) }
    }

    /// How long the work that waits and runs should take.
    fn wait(&self) -> Duration {
        let now = clock::now();
        let running: Duration =
            self.ends.values().map(|end| end.saturating_duration_since(now)).sum();
        (self.policy.predicted() + running) / u32::try_from(self.workers.max(1)).unwrap_or(1)
    }

    fn backlog(&self) -> Duration {
        self.wait().clamp(SHORTEST_RETRY, LONGEST_RETRY)
    }
}

fn fail(jobs: Vec<Job>) {
    for job in jobs {
        answer(job, Err(EngineError::WorkerFailed));
    }
}

/// Sends a verdict; false where nobody waits for it any more.
pub(crate) fn answer(job: Job, verdict: Result<EngineScores, EngineError>) -> bool {
    job.reply.send(verdict).is_ok()
}

// === impl EngineStats ===

impl EngineStats {
    fn begin(&mut self, batch: &Batch<Job>) {
        self.running_items += batch.items.len();
        self.prefixes_computed += batch.prefixes_computed as u64;
    }

    fn end(&mut self, ran: &Ran) {
        self.running_items -= ran.items;
        self.count_batch(ran.items, ran.tokens, ran.took, ran.phases);
    }
}
