use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sleuth_core::{Pixels, Prepared};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::policy::{GroupKey, Stage};
use crate::queue::{Queue, Wanted};
use crate::stats::{EngineStats, Health};
use crate::{
    EngineError, EngineLoad, EngineScores, EngineSettings, Forecast, ItemShape, ModelFacts,
    OpenItem, Reservation, RewardModel, StartError, Submission, Terms, worker,
};

/// A model's workers on their own threads, behind one queue that all callers share. Clones are
/// handles to the same workers; they end after the last handle is dropped, or with [`Engine::shutdown`].
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
    facts: ModelFacts,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

type Started = Result<(Arc<Queue>, ModelFacts), StartError>;

// === impl Engine ===

impl Engine {
    /// Builds a model's workers on a new thread and waits until they are ready.
    ///
    /// `build` gives one [`RewardModel`] per worker, at least one; they share weights and caches
    /// as they see fit. The first stays on the thread that built it, each other one gets a thread
    /// of its own. Dropping the future lets the load finish and then ends the threads.
    pub async fn start<M, E, F>(build: F, settings: EngineSettings) -> Result<Self, StartError>
    where
        M: RewardModel,
        E: Into<Box<dyn Error + Send + Sync>>,
        F: FnOnce() -> Result<Vec<M>, E> + Send + 'static,
    {
        settings.check()?;
        let (sender, started) = oneshot::channel();
        let thread = spawn(0, move || main(build, settings, sender)).map_err(StartError::Thread)?;
        let (queue, facts) = started.await.unwrap_or(Err(StartError::Panicked))?;
        let threads = Mutex::new(vec![thread]);
        Ok(Self { handle: Arc::new(Handle { queue, facts, threads }) })
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
        terms: Terms,
    ) -> Result<Reservation, EngineError> {
        let queue = &self.handle.queue;
        let wanted = Wanted {
            key: GroupKey { image_key, prompt },
            tokens: response_tokens,
            past: 0,
            stage: Stage::Whole,
            terms,
        };
        let claim = queue.claim(wanted)?;
        Ok(Reservation::new(Arc::clone(queue), claim))
    }

    /// Scores one item. It is taken in or refused at the call, not when first polled; dropping the
    /// future gives the item up. With a deadline, to be called within a tokio runtime.
    pub fn submit(
        &self,
        prepared: Prepared,
        terms: Terms,
        deadline: Option<Instant>,
    ) -> impl Future<Output = Result<EngineScores, EngineError>> + Send + use<> {
        let prompt = Arc::clone(&prepared.prompt);
        let submission = self
            .reserve(prepared.image_key, prompt, prepared.response.len(), terms)
            .map(|reservation| reservation.submit(prepared, deadline));
        async move { submission?.await }
    }

    /// Opens an item whose response is still being generated. Its prefix is computed at once; the
    /// second value tells when, and may be dropped.
    ///
    /// Fails where the model scores whole responses only, or too many items are open.
    pub fn open(
        &self,
        pixels: Pixels,
        image_key: [u8; 32],
        prompt: Arc<[u32]>,
        terms: Terms,
        deadline: Option<Instant>,
    ) -> Result<(OpenItem, Submission), EngineError> {
        if !self.handle.facts.incremental {
            return Err(EngineError::NotIncremental);
        }
        let key = GroupKey { image_key, prompt };
        OpenItem::open(&self.handle.queue, pixels, key, terms, deadline)
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

    /// How long an item of this image, prompt and number of response tokens would wait, and what
    /// it would take, by what batches took lately.
    pub fn forecast(&self, image_key: [u8; 32], prompt: Arc<[u32]>, tokens: usize) -> Forecast {
        let shape = ItemShape { prompt: prompt.len(), tokens, past: 0 };
        self.handle.queue.forecast(&GroupKey { image_key, prompt }, &shape)
    }

    /// What the engine has to do and holds, cheaply: for whoever asks many times a second.
    pub fn load(&self) -> EngineLoad {
        self.handle.queue.load()
    }

    /// Whether the keys and values of an image and a prompt are held.
    pub fn is_resident(&self, image_key: &[u8; 32], prompt: &Arc<[u32]>) -> bool {
        self.handle.facts.prefixes.is_resident(image_key, prompt)
    }

    /// How long a new item would wait, by what batches took lately.
    pub fn predicted_wait(&self) -> Duration {
        self.handle.queue.wait()
    }

    /// How long the work that waits and runs should take: what a refused caller may be told.
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
    /// Waits for workers that are about to end.
    async fn join(&self) {
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
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

fn spawn(worker: usize, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("sleuth-device-{worker}")).spawn(body)
}

/// The first device thread, from building the workers to the end of them all.
fn main<M, E, F>(build: F, settings: EngineSettings, started: oneshot::Sender<Started>)
where
    M: RewardModel,
    E: Into<Box<dyn Error + Send + Sync>>,
    F: FnOnce() -> Result<Vec<M>, E>,
{
    // Where a send fails nobody waits for the answer any more; then there is nothing to do.
    let mut workers = match catch_unwind(AssertUnwindSafe(build)) {
        Ok(Ok(workers)) => workers.into_iter(),
        Ok(Err(error)) => return drop(started.send(Err(StartError::Model(error.into())))),
        Err(_) => return drop(started.send(Err(StartError::Panicked))),
    };
    let Some(first) = workers.next() else {
        return drop(started.send(Err(StartError::NoWorker)));
    };
    let facts = first.facts();
    let queue = Arc::new(Queue::new(&settings, &facts, 1 + workers.len()));
    let panics = settings.max_panics_in_a_row;
    let mut threads = Vec::new();
    for (at, model) in workers.enumerate() {
        let own = Arc::clone(&queue);
        match spawn(at + 1, move || work(model, &own, panics)) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                queue.stop();
                return drop(started.send(Err(StartError::Thread(error))));
            }
        }
    }
    if started.send(Ok((Arc::clone(&queue), facts))).is_err() {
        queue.stop();
    }
    work(first, &queue, panics);
    for thread in threads {
        // A worker catches its model's panics.
        let _ = thread.join();
    }
}

fn work(model: impl RewardModel, queue: &Arc<Queue>, max_panics_in_a_row: u32) {
    worker::run(model, queue, max_panics_in_a_row);
    queue.worker_ended();
}

#[cfg(test)]
mod tests;
