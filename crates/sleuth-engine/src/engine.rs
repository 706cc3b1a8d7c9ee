use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sleuth_core::Prepared;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::policy::GroupKey;
use crate::queue::Queue;
use crate::stats::{EngineStats, Health};
use crate::{
    EngineError, EngineScores, EngineSettings, Reservation, RewardModel, StartError, worker,
};

/// A model on its own thread, behind a queue that all callers share. Clones are handles to the
/// same worker; the worker ends after the last handle is dropped, or with [`Engine::shutdown`].
#[derive(Clone, Debug)]
pub struct Engine {
    handle: Arc<Handle>,
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Items that had not begun by the deadline and were turned away.
    pub turned_away: usize,
    /// Whether the worker has ended. False where a batch outlasts the deadline; it ends by itself.
    pub stopped: bool,
}

#[derive(Debug)]
struct Handle {
    queue: Arc<Queue>,
    facts: Facts,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What is known of the model once it is built.
#[derive(Clone, Copy, Debug)]
struct Facts {
    image_tokens: usize,
    batch_invariant: bool,
}

type Started = Result<(Arc<Queue>, Facts), StartError>;

// === impl Engine ===

impl Engine {
    /// Builds a model on a new thread and waits until it is ready.
    ///
    /// `build` runs on the thread that owns the model from then on: a device is created, loaded
    /// and used on one thread. Dropping the future lets the load finish and then ends the thread.
    pub async fn start<M, E, F>(build: F, settings: EngineSettings) -> Result<Self, StartError>
    where
        M: RewardModel,
        E: Into<Box<dyn Error + Send + Sync>>,
        F: FnOnce() -> Result<M, E> + Send + 'static,
    {
        settings.check()?;
        let (sender, started) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("sleuth-device".to_owned())
            .spawn(move || main(build, settings, sender))
            .map_err(StartError::Thread)?;
        let (queue, facts) = started.await.unwrap_or(Err(StartError::Panicked))?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { handle: Arc::new(Handle { queue, facts, thread }) })
    }

    /// Fails at once where no item has a chance now: the queue is full or the engine is closing.
    pub fn check_room(&self) -> Result<(), EngineError> {
        self.handle.queue.check_room()
    }

    /// Takes room for an item whose image is not decoded yet.
    ///
    /// `image_key` and `prompt` are those the [`Prepared`] item will have; `response_tokens` is
    /// the length of its response.
    pub fn reserve(
        &self,
        image_key: [u8; 32],
        prompt: Arc<[u32]>,
        response_tokens: usize,
    ) -> Result<Reservation, EngineError> {
        let queue = &self.handle.queue;
        let claim = queue.claim(GroupKey { image_key, prompt }, response_tokens)?;
        Ok(Reservation::new(Arc::clone(queue), claim))
    }

    /// Scores one item. It is taken in or refused at the call, not when first polled; dropping the
    /// future gives the item up. With a deadline, to be called within a tokio runtime.
    pub fn submit(
        &self,
        prepared: Prepared,
        deadline: Option<Instant>,
    ) -> impl Future<Output = Result<EngineScores, EngineError>> + Send + use<> {
        let prompt = Arc::clone(&prepared.prompt);
        let submission = self
            .reserve(prepared.image_key, prompt, prepared.response.len())
            .map(|reservation| reservation.submit(prepared, deadline));
        async move { submission?.await }
    }

    /// Rows of the image part of a prefix.
    pub fn image_tokens(&self) -> usize {
        self.handle.facts.image_tokens
    }

    /// Whether the same bits come back whatever shares the batch.
    pub fn batch_invariant(&self) -> bool {
        self.handle.facts.batch_invariant
    }

    /// What was done so far and what is held now.
    pub fn stats(&self) -> EngineStats {
        self.handle.queue.stats()
    }

    /// How long the work that waits and runs should take, from measured throughput; 50 ms to 60 s.
    pub fn backlog(&self) -> Duration {
        self.handle.queue.backlog()
    }

    /// The worker's health, now and as it changes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.handle.queue.watch_health()
    }

    /// Takes no more work; what is in runs on. [`Engine::shutdown`] does this too.
    pub fn close(&self) {
        self.handle.queue.close();
    }

    /// Takes no more work, lets what is in finish within `grace`, turns the rest away, and joins
    /// the worker if it has ended.
    pub async fn shutdown(&self, grace: Duration) -> Shutdown {
        self.close();
        let mut health = self.health();
        let drained = timeout(grace, health.wait_for(|h| *h == Health::Stopped)).await.is_ok();
        let turned_away = if drained { 0 } else { self.handle.queue.stop() };
        // A worker that was idle but for unused reservations ends now; one in a batch does not.
        let stopped = drained || self.stats().running_items == 0;
        if stopped {
            self.handle.join().await;
        }
        tracing::info!(turned_away, stopped, "the engine shut down");
        Shutdown { turned_away, stopped }
    }
}

// === impl Handle ===

impl Handle {
    /// Waits for a worker that is about to end.
    async fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The thread catches the model's panics, and a join that is cut off harms nobody.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Submissions and reservations may outlive the handles; nobody can add to them.
        self.queue.close();
    }
}

/// The device thread, from building the model to dropping it.
fn main<M, E, F>(build: F, settings: EngineSettings, started: oneshot::Sender<Started>)
where
    M: RewardModel,
    E: Into<Box<dyn Error + Send + Sync>>,
    F: FnOnce() -> Result<M, E>,
{
    let model = match catch_unwind(AssertUnwindSafe(build)) {
        Ok(Ok(model)) => model,
        Ok(Err(error)) => {
            // Nobody may wait for the answer any more; then there is nothing to do.
            let _ = started.send(Err(StartError::Model(error.into())));
            return;
        }
        Err(_) => {
            let _ = started.send(Err(StartError::Panicked));
            return;
        }
    };
    let facts =
        Facts { image_tokens: model.image_tokens(), batch_invariant: model.batch_invariant() };
    let queue = Arc::new(Queue::new(settings.limits(facts.image_tokens)));
    if started.send(Ok((Arc::clone(&queue), facts))).is_ok() {
        worker::run(model, &queue, settings.max_panics_in_a_row);
    }
    queue.set_health(Health::Stopped);
}

#[cfg(test)]
mod tests;
