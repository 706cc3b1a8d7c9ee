use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sleuth_core::Prepared;
use tokio::sync::{oneshot, watch};

use crate::policy::{Claim, GroupKey, Limits, Policy, Step, Ticket};
use crate::stats::{EngineStats, Health};
use crate::throughput::Throughput;
use crate::{EngineError, EngineScores, clock};

/// The verdict on one item, as it goes back to its caller.
pub(crate) type Reply = oneshot::Sender<Result<EngineScores, EngineError>>;

/// An item that waits.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) prepared: Prepared,
    pub(crate) submitted: Instant,
    pub(crate) reply: Reply,
}

/// The one queue between all callers and the worker.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    health: watch::Sender<Health>,
}

#[derive(Debug)]
struct State {
    policy: Policy<Job>,
    phase: Phase,
    stats: EngineStats,
    throughput: Throughput,
}

/// Why a caller takes an item back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withdrawal {
    /// Nobody waits for it any more.
    Dropped,
    /// Its deadline passed while it waited.
    Late,
}

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
    pub(crate) fn new(limits: Limits) -> Self {
        let state = State {
            policy: Policy::new(limits),
            phase: Phase::Open,
            stats: EngineStats::default(),
            throughput: Throughput::default(),
        };
        let (health, _) = watch::channel(Health::Healthy);
        Self { state: Mutex::new(state), changed: Condvar::new(), health }
    }

    /// Fails where an item would be refused whatever it is.
    pub(crate) fn check_room(&self) -> Result<(), EngineError> {
        let mut state = self.lock();
        state.check_open()?;
        if state.policy.is_full() { Err(state.refuse()) } else { Ok(()) }
    }

    pub(crate) fn claim(&self, key: GroupKey, tokens: usize) -> Result<Claim, EngineError> {
        let mut state = self.lock();
        state.check_open()?;
        state.policy.claim(key, tokens).map_err(|_| state.refuse())
    }

    pub(crate) fn release(&self, claim: Claim) {
        self.lock().policy.release(claim);
        // A draining worker may wait for this claim only.
        self.changed.notify_one();
    }

    /// Puts a job into its room. `None` where the engine stopped meanwhile: the job was answered.
    pub(crate) fn enqueue(
        &self,
        claim: Claim,
        job: Job,
        deadline: Option<Instant>,
    ) -> Option<Ticket> {
        let mut state = self.lock();
        if state.phase == Phase::Stopping {
            state.policy.release(claim);
            state.stats.drained += 1;
            drop(state);
            self.changed.notify_one();
            answer(job, Err(EngineError::Draining));
            return None;
        }
        let ticket = state.policy.enqueue(claim, job, deadline);
        drop(state);
        self.changed.notify_one();
        Some(ticket)
    }

    /// Takes an item whose caller is gone out of the queue, if it has not begun.
    pub(crate) fn withdraw(&self, ticket: Ticket, why: Withdrawal) {
        let mut state = self.lock();
        let job = state.policy.cancel(ticket);
        match why {
            Withdrawal::Dropped => state.stats.cancelled += u64::from(job.is_some()),
            Withdrawal::Late => state.stats.expired += u64::from(job.is_some()),
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Waits for work; `None` once the engine is closed and everything taken in has ended.
    pub(crate) fn next(&self) -> Option<Step<Job>> {
        let mut state = self.lock();
        loop {
            if !state.policy.is_idle() {
                let step = state.policy.next(clock::now());
                state.stats.expired += step.expired.len() as u64;
                state.stats.running_items = step.batch.len();
                state.stats.running_tokens = step.tokens;
                return Some(step);
            }
            match state.phase {
                Phase::Stopping => return None,
                Phase::Draining if state.policy.items() == 0 => return None,
                Phase::Draining | Phase::Open => {}
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes note of a finished batch.
    pub(crate) fn finish(
        &self,
        tokens: usize,
        took: Duration,
        count: impl FnOnce(&mut EngineStats),
    ) {
        let mut state = self.lock();
        state.stats.running_items = 0;
        state.stats.running_tokens = 0;
        state.stats.count_batch(tokens, took);
        count(&mut state.stats);
        state.throughput.record(tokens, took);
    }

    /// Takes no more work; what is in runs on.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Draining;
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Turns away everything that has not begun; says how many items that were.
    pub(crate) fn stop(&self) -> usize {
        let mut state = self.lock();
        state.phase = Phase::Stopping;
        let jobs = state.policy.drain();
        state.stats.drained += jobs.len() as u64;
        drop(state);
        self.changed.notify_one();
        let turned_away = jobs.len();
        for job in jobs {
            answer(job, Err(EngineError::Draining));
        }
        turned_away
    }

    pub(crate) fn stats(&self) -> EngineStats {
        let state = self.lock();
        EngineStats {
            queued_items: state.policy.items(),
            queued_tokens: state.policy.tokens(),
            ..state.stats.clone()
        }
    }

    /// How long the work that waits and runs should take.
    pub(crate) fn backlog(&self) -> Duration {
        self.lock().backlog()
    }

    pub(crate) fn set_health(&self, health: Health) {
        self.health.send_if_modified(|old| std::mem::replace(old, health) != health);
    }

    pub(crate) fn watch_health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Nothing panics while the lock is held, so a poisoned state is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn refuse(&mut self) -> EngineError {
        self.stats.refused += 1;
        EngineError::QueueFull { retry_after: self.backlog() }
    }

    fn backlog(&self) -> Duration {
        self.throughput.time_for(self.policy.tokens() + self.stats.running_tokens)
    }
}

/// Sends a verdict; false where nobody waits for it any more.
pub(crate) fn answer(job: Job, verdict: Result<EngineScores, EngineError>) -> bool {
    job.reply.send(verdict).is_ok()
}
