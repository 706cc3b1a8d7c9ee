//! Generation: what a backbone writes after an image, a prompt and some tokens.
//!
//! One OS thread owns a [`LanguageWorker`]. Requests reach it through one bounded queue; all that
//! run are decoded together, a token of every candidate in each pass.

mod request;
mod running;
mod sampler;
mod tokens;
mod worker;

use std::error::Error;
use std::future::Future;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use sleuth_models::cpu::LanguageModel;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

pub use self::request::{Candidate, Ended, Generate, Rate, Sampling, Stop, Units};
use self::request::{Job, Wanted};
pub use self::tokens::TokenSet;
pub use self::worker::{LanguageError, LanguageSettings, LanguageWorker};
use crate::{EngineError, KvCost, Shutdown, StartError};

/// A handle to a generating worker thread over a backbone; clones share it. The thread ends after
/// the last handle is dropped, or with [`Generator::shutdown`].
#[derive(Clone, Debug)]
pub struct Generator {
    shared: Arc<Shared>,
}

/// Bounds of a generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneratorSettings {
    /// Requests that wait; more are refused.
    pub max_queue_requests: NonZeroUsize,
    /// Candidates that are decoded at a time, of all requests together and of one.
    pub max_running_candidates: NonZeroUsize,
    /// What a refused caller is told to wait.
    pub retry_after: Duration,
}

/// What a generator has to know of its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanguageFacts {
    /// Rows of the image part of a prefix.
    pub image_tokens: usize,
    /// Bytes that a prefix holds of its image beside its rows; prefixes of one image share them.
    pub image_bytes: u64,
    /// Ids that may be written.
    pub vocabulary: usize,
    /// Longest sequence, image and text together.
    pub max_positions: usize,
    /// What keys and values take.
    pub kv: KvCost,
    /// Bytes of them that all running requests hold at most.
    pub max_kv_bytes: u64,
}

#[derive(Debug)]
struct Shared {
    /// `None` once it takes no more.
    sender: Mutex<Option<mpsc::Sender<Job>>>,
    signals: Arc<Signals>,
    ended: watch::Receiver<bool>,
    facts: LanguageFacts,
    settings: GeneratorSettings,
}

/// What the worker thread and the handles tell each other.
#[derive(Debug, Default)]
struct Signals {
    /// Turn away what is left.
    stop: AtomicBool,
    turned_away: AtomicUsize,
}

type Started = Result<LanguageFacts, StartError>;

// === impl GeneratorSettings ===

impl Default for GeneratorSettings {
    fn default() -> Self {
        Self {
            max_queue_requests: NonZeroUsize::MIN.saturating_add(255),
            max_running_candidates: NonZeroUsize::MIN.saturating_add(63),
            retry_after: Duration::from_secs(1),
        }
    }
}

// === impl Generator ===

impl Generator {
    /// Builds a worker on a new thread and waits until it is ready.
    ///
    /// Dropping the future lets the load finish and then ends the thread.
    pub async fn start<F, E>(build: F, settings: GeneratorSettings) -> Result<Self, StartError>
    where
        F: FnOnce() -> Result<LanguageWorker, E> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let (sender, queue) = mpsc::channel(settings.max_queue_requests.get());
        let (started_sender, started) = oneshot::channel();
        let (ended_sender, ended) = watch::channel(false);
        let signals = Arc::new(Signals::default());
        let own = Arc::clone(&signals);
        thread::Builder::new()
            .name("sleuth-generator".to_owned())
            .spawn(move || {
                main(build, settings, queue, &own, started_sender);
                ended_sender.send_replace(true);
            })
            .map_err(StartError::Thread)?;
        let facts = started.await.unwrap_or(Err(StartError::Panicked))?;
        let sender = Mutex::new(Some(sender));
        Ok(Self { shared: Arc::new(Shared { sender, signals, ended, facts, settings }) })
    }

    /// Writes candidates. The request is taken in or refused at the call, not when first polled;
    /// dropping the future gives it up, also while it runs. With a deadline, to be called within a
    /// tokio runtime.
    ///
    /// Ids are below [`LanguageFacts::vocabulary`]. There are fewer candidates than asked for where
    /// [`Sampling::Branch`] finds fewer first tokens.
    ///
    /// # Errors
    /// [`EngineError::QueueFull`], [`EngineError::TooLarge`] (sequence, candidates or their keys and
    /// values), [`EngineError::Draining`], [`EngineError::Deadline`], [`EngineError::NotFinite`],
    /// [`EngineError::WorkerFailed`].
    pub fn generate(
        &self,
        request: Generate,
        deadline: Option<Instant>,
    ) -> impl Future<Output = Result<Vec<Candidate>, EngineError>> + Send + use<> {
        let rows = request.given.len().saturating_add(request.max_tokens.get());
        let sequences = (rows, request.candidates.get());
        let wanted = self.wanted(request.image_key, request.prompt.len(), sequences);
        let (reply, answer) = oneshot::channel();
        let job = wanted.map(|wanted| Job::generate(request, wanted, deadline, reply));
        self.submit(job, answer, deadline)
    }

    /// Natural logarithms of the probability of each token of each continuation, in one pass. As
    /// [`Generator::generate`] else.
    pub fn rate(
        &self,
        request: Rate,
        deadline: Option<Instant>,
    ) -> impl Future<Output = Result<Vec<Vec<f32>>, EngineError>> + Send + use<> {
        let longest = request.continuations.iter().map(|c| c.len()).max().unwrap_or(0);
        let rows = request.given.len().saturating_add(longest);
        let sequences = (rows, request.continuations.len());
        let wanted = self.wanted(request.image_key, request.prompt.len(), sequences);
        let (reply, answer) = oneshot::channel();
        let job = wanted.map(|wanted| Job::rate(request, wanted, deadline, reply));
        self.submit(job, answer, deadline)
    }

    /// What it knows of its model.
    pub fn facts(&self) -> LanguageFacts {
        self.shared.facts
    }

    /// Its bounds.
    pub fn settings(&self) -> GeneratorSettings {
        self.shared.settings
    }

    /// Takes no more requests, lets those that are in finish within `grace`, and turns the rest
    /// away.
    pub async fn shutdown(&self, grace: Duration) -> Shutdown {
        self.shared.close();
        let mut ended = self.shared.ended.clone();
        let drained = timeout(grace, ended.wait_for(|ended| *ended)).await.is_ok();
        if !drained {
            self.shared.signals.stop.store(true, Ordering::Release);
            // One more pass ends by itself; nobody waits for more than that.
            let _ =
                timeout(grace.max(Duration::from_secs(1)), ended.wait_for(|ended| *ended)).await;
        }
        let turned_away = self.shared.signals.turned_away.load(Ordering::Acquire);
        let stopped = *ended.borrow();
        tracing::info!(turned_away, stopped, "the generator shut down");
        Shutdown { turned_away, stopped }
    }

    /// What a request of `candidates` sequences of at most `rows` rows behind a prompt would hold.
    fn wanted(
        &self,
        image: [u8; 32],
        prompt: usize,
        (rows, candidates): (usize, usize),
    ) -> Result<Wanted, EngineError> {
        let LanguageFacts { image_tokens, image_bytes, max_positions, kv, max_kv_bytes, .. } =
            self.shared.facts;
        let prefix = image_tokens + prompt;
        let most = self.shared.settings.max_running_candidates.get();
        if prefix.saturating_add(rows) > max_positions || candidates > most {
            return Err(EngineError::TooLarge);
        }
        // As if nothing before the candidates were shared: at most a page's copy more is held.
        let kv_bytes = kv.kept(prefix) + kv.kept(rows) * (candidates as u64 + 1);
        if kv_bytes.saturating_add(image_bytes) > max_kv_bytes {
            return Err(EngineError::TooLarge);
        }
        Ok(Wanted { image, image_bytes, kv_bytes, candidates })
    }

    fn submit<T>(
        &self,
        job: Result<Job, EngineError>,
        answer: oneshot::Receiver<Result<T, EngineError>>,
        deadline: Option<Instant>,
    ) -> impl Future<Output = Result<T, EngineError>> + Send + use<T>
    where
        T: Send,
    {
        let sent = job.and_then(|job| self.shared.send(job));
        let timer = deadline.map(sleep_until);
        async move {
            sent?;
            // The worker answers every job; a sender dropped unused means the worker is gone.
            let answer = async { answer.await.unwrap_or(Err(EngineError::WorkerFailed)) };
            match timer {
                None => answer.await,
                Some(timer) => tokio::select! {
                    biased;
                    answer = answer => answer,
                    () = timer => Err(EngineError::Deadline),
                },
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    fn send(&self, job: Job) -> Result<(), EngineError> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = &*sender else { return Err(EngineError::Draining) };
        sender.try_send(job).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => {
                EngineError::QueueFull { retry_after: self.settings.retry_after }
            }
            mpsc::error::TrySendError::Closed(_) => EngineError::WorkerFailed,
        })
    }

    fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

// === impl LanguageFacts ===

impl LanguageFacts {
    fn of(model: &LanguageModel, max_kv_bytes: u64) -> Self {
        let sizes = model.sizes();
        Self {
            image_tokens: sizes.image_rows,
            image_bytes: sizes.image_bytes,
            vocabulary: model.vocabulary(),
            max_positions: sizes.max_positions,
            kv: KvCost {
                page_rows: sizes.kv_page_rows,
                row_bytes: sizes.kv_page_bytes / sizes.kv_page_rows as u64,
                layers: sizes.layers,
            },
            max_kv_bytes,
        }
    }
}

fn main<F, E>(
    build: F,
    settings: GeneratorSettings,
    queue: mpsc::Receiver<Job>,
    signals: &Signals,
    started: oneshot::Sender<Started>,
) where
    F: FnOnce() -> Result<LanguageWorker, E>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    // Where a send fails nobody waits for the answer any more; then the queue is closed already.
    let worker = match catch_unwind(AssertUnwindSafe(build)) {
        Ok(Ok(worker)) => worker,
        Ok(Err(error)) => return drop(started.send(Err(StartError::Model(error.into())))),
        Err(_) => return drop(started.send(Err(StartError::Panicked))),
    };
    if started.send(Ok(worker.facts())).is_ok() {
        running::run(worker, settings, queue, signals);
    }
}

#[cfg(test)]
mod tests;
