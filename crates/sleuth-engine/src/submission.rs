use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sleuth_core::Prepared;
use sleuth_telemetry::traces::BatchTrace;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::open::OpenId;
use crate::policy::{Claim, Ticket};
use crate::queue::{Job, Queue, Withdrawal};
use crate::{EngineError, Reuse, clock};

/// What the model said about one item, and where its time went.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineScores {
    /// One finite logit per response token, in order.
    pub logits: Vec<f32>,
    /// From submission to the start of the batch.
    pub queue: Duration,
    /// The batch's forward pass.
    pub compute: Duration,
    /// What it was predicted to take before it ran.
    pub predicted: Duration,
    /// What was held already.
    pub reuse: Reuse,
    /// The batch that the item ran in.
    pub batch: Arc<BatchTrace>,
}

/// On whose behalf an item runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Who shares the engine with others.
    pub tenant: Arc<str>,
    /// Higher runs first.
    pub priority: i32,
}

/// Room in the queue for one item, taken before the costly part of preparing it. Dropping it gives
/// the room back.
#[derive(Debug)]
#[must_use = "dropping a reservation gives its room back"]
pub struct Reservation {
    queue: Arc<Queue>,
    claim: Option<Claim>,
}

/// An item on its way through the engine. Dropping it gives the item up: one that waits is taken
/// out at once, one that runs is computed for nobody.
#[derive(Debug)]
#[must_use = "dropping a submission gives the item up"]
pub struct Submission {
    queue: Arc<Queue>,
    ticket: Option<Ticket>,
    reply: oneshot::Receiver<Result<EngineScores, EngineError>>,
    timer: Option<Pin<Box<Sleep>>>,
}

// === impl Terms ===

impl Default for Terms {
    /// The nameless tenant, at priority 0.
    fn default() -> Self {
        Self { tenant: Arc::from(""), priority: 0 }
    }
}

// === impl Reservation ===

impl Reservation {
    pub(crate) fn new(queue: Arc<Queue>, claim: Claim) -> Self {
        Self { queue, claim: Some(claim) }
    }

    /// Uses the room. `prepared` must be of the image, prompt and response length reserved.
    ///
    /// With a deadline, to be called within a tokio runtime that has a timer.
    pub fn submit(mut self, prepared: Prepared, deadline: Option<Instant>) -> Submission {
        Submission::of(Arc::clone(&self.queue), self.claim.take(), prepared, None, deadline)
    }

    /// As [`submit`](Self::submit), of several reservations of one engine at once: no batch forms
    /// between them, so that those of one group run together, as far as a batch has room.
    pub fn submit_together(
        items: Vec<(Self, Prepared)>,
        deadline: Option<Instant>,
    ) -> Vec<Submission> {
        let mut jobs = Vec::with_capacity(items.len());
        let mut replies = Vec::with_capacity(items.len());
        for (mut reservation, prepared) in items {
            // Empty only while dropping.
            let Some(claim) = reservation.claim.take() else { continue };
            let (sender, reply) = oneshot::channel();
            let job = Job { prepared, open: None, submitted: clock::now(), reply: sender };
            jobs.push((claim, job));
            replies.push((Arc::clone(&reservation.queue), reply));
        }
        let Some((queue, _)) = replies.first() else { return Vec::new() };
        let tickets = queue.enqueue_together(jobs, deadline.map(Instant::into_std));
        replies
            .into_iter()
            .zip(tickets)
            .map(|((queue, reply), ticket)| {
                let timer = deadline.map(|at| Box::pin(sleep_until(at)));
                Submission { queue, ticket, reply, timer }
            })
            .collect()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.queue.release(claim);
        }
    }
}

// === impl Submission ===

impl Future for Submission {
    type Output = Result<EngineScores, EngineError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(reply) = Pin::new(&mut self.reply).poll(cx) {
            self.ticket = None;
            // The worker answers every job; a sender dropped unused means the worker is gone.
            return Poll::Ready(reply.unwrap_or(Err(EngineError::WorkerFailed)));
        }
        match self.timer.as_mut().map(|timer| timer.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => {
                self.withdraw(Withdrawal::Late);
                Poll::Ready(Err(EngineError::Deadline))
            }
            Some(Poll::Pending) | None => Poll::Pending,
        }
    }
}

impl Submission {
    pub(crate) fn new(
        queue: &Arc<Queue>,
        claim: Claim,
        prepared: Prepared,
        open: Option<OpenId>,
        deadline: Option<Instant>,
    ) -> Self {
        Self::of(Arc::clone(queue), Some(claim), prepared, open, deadline)
    }

    fn of(
        queue: Arc<Queue>,
        claim: Option<Claim>,
        prepared: Prepared,
        open: Option<OpenId>,
        deadline: Option<Instant>,
    ) -> Self {
        let (sender, reply) = oneshot::channel();
        let job = Job { prepared, open, submitted: clock::now(), reply: sender };
        let ticket =
            claim.and_then(|claim| queue.enqueue(claim, job, deadline.map(Instant::into_std)));
        let timer = deadline.map(|at| Box::pin(sleep_until(at)));
        Self { queue, ticket, reply, timer }
    }

    /// Gives the item up if it has not begun; true where it had not. One that runs goes on, and
    /// its logits come.
    pub fn give_up_waiting(&mut self) -> bool {
        let Some(ticket) = self.ticket else { return false };
        let waited = self.queue.withdraw(ticket, Withdrawal::Dropped);
        if waited {
            self.ticket = None;
        }
        waited
    }

    fn withdraw(&mut self, why: Withdrawal) {
        // First, so that a batch that takes the item right now finds nobody waiting.
        self.reply.close();
        if let Some(ticket) = self.ticket.take() {
            self.queue.withdraw(ticket, why);
        }
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        self.withdraw(Withdrawal::Dropped);
    }
}
