use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sleuth_core::{
    CacheUse, Encoded, Failure, ModelCard, Pixels, Prepared, ScoreRequest, Scored, Timing,
};
use sleuth_engine::{Engine, EngineScores, Reuse, Terms};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use crate::check::{self, Checked};
use crate::flights::{Flight, Flights};
use crate::intake::{Intake, Share};
use crate::verdict::{self, Rules};
use crate::{BoxFuture, Prepare, Scorer, ServiceSettings, failures};

/// Scores items with one model: checks, prepares, batches with all other callers, aggregates.
#[derive(Clone)]
pub struct ScoreService {
    shared: Arc<Inner>,
}

struct Inner {
    card: ModelCard,
    prepare: Arc<dyn Prepare>,
    engine: Engine,
    intake: Arc<Intake>,
    flights: Arc<Flights>,
    /// One permit for each thread that may prepare.
    threads: Arc<Semaphore>,
    max_timeout: Duration,
}

/// An item's texts as tokens, and the name of its image.
struct Read {
    image_key: [u8; 32],
    prompt: Arc<[u32]>,
    response: Encoded,
}

// === impl ScoreService ===

impl ScoreService {
    /// Puts a service together. `card`, `prepare` and `engine` must be of the same model.
    pub fn new(
        card: ModelCard,
        prepare: impl Prepare,
        engine: Engine,
        settings: ServiceSettings,
    ) -> Self {
        let ServiceSettings {
            prepare_threads,
            max_preparing_items,
            max_preparing_bytes,
            max_timeout,
        } = settings;
        let threads = prepare_threads.get().min(Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Inner {
                card,
                prepare: Arc::new(prepare),
                engine,
                intake: Arc::new(Intake::new(max_preparing_items, max_preparing_bytes)),
                flights: Arc::default(),
                threads: Arc::new(Semaphore::new(threads)),
                max_timeout,
            }),
        }
    }
}

impl Scorer for ScoreService {
    fn score(&self, request: ScoreRequest<Bytes>) -> BoxFuture<'_, Result<Scored, Failure>> {
        Box::pin(async move {
            let verdict = self.shared.score(request).await;
            if let Err(failure) = &verdict {
                tracing::debug!(class = %failure.class, reason = %failure.reason, "an item failed");
            }
            verdict
        })
    }

    fn tokenize(&self, text: &str) -> Result<Encoded, Failure> {
        self.shared.prepare.response(text).map_err(|failure| failure.at("text"))
    }

    fn model(&self) -> &ModelCard {
        &self.shared.card
    }
}

impl fmt::Debug for ScoreService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScoreService")
            .field("model", &self.shared.card.name)
            .finish_non_exhaustive()
    }
}

// === impl Inner ===

impl Inner {
    async fn score(&self, request: ScoreRequest<Bytes>) -> Result<Scored, Failure> {
        let received = Instant::now();
        let timeout = request.timeout.map_or(self.max_timeout, |t| t.min(self.max_timeout));
        let item = check::request(request, &self.card)?;
        // A limit beyond what the clock can count is no limit.
        let Some(deadline) = received.checked_add(timeout) else {
            return self.work(item, received, None).await;
        };
        timeout_at(deadline, self.work(item, received, Some(deadline)))
            .await
            .unwrap_or_else(|_| Err(failures::deadline()))
    }

    async fn work(
        &self,
        item: Checked,
        received: Instant,
        deadline: Option<Instant>,
    ) -> Result<Scored, Failure> {
        let Checked { image, prompt, response, options, threshold, priority } = item;
        let share = self.admit(image.len())?;
        let (read, response) = self.read(image.clone(), prompt, response).await?;
        check::lengths(&read.prompt, &read.response, &self.card)?;
        let Read { image_key, prompt, response: encoded } = read;
        let terms = Terms { priority, ..Terms::default() };
        // The cost is known now, and nothing is decoded yet: the last point to refuse.
        let reservation = self
            .engine
            .reserve(image_key, Arc::clone(&prompt), encoded.ids.len(), terms)
            .map_err(failures::from_engine)?;
        // Held until the verdict, so that later items of the group find the pixels.
        let flight = self.decode(image_key, image);
        let pixels = flight.pixels().await?;
        drop(share);
        let ids = Arc::from(encoded.ids.as_slice());
        let prepared = Prepared { pixels, image_key, prompt, response: ids };
        let prepare = received.elapsed();
        let EngineScores { logits, queue, compute, reuse, .. } =
            reservation.submit(prepared, deadline).await.map_err(failures::from_engine)?;
        let batch_invariant = self.engine.batch_invariant();
        let timing = Timing { prepare, queue, compute };
        let cache = cache_use(reuse);
        let card = &self.card;
        let rules = Rules { card, options, threshold, batch_invariant, timing, cache };
        verdict::scored(&response, &encoded, &logits, rules)
    }

    /// Refuses, before any work, what the engine or the preparation has no room for.
    fn admit(&self, bytes: usize) -> Result<Share, Failure> {
        self.engine.check_room().map_err(failures::from_engine)?;
        self.intake.admit(bytes).ok_or_else(|| failures::queue_full(self.engine.backlog()))
    }

    /// Tokenises an item's texts and names its image. Gives the response back.
    async fn read(
        &self,
        image: Bytes,
        prompt: String,
        response: String,
    ) -> Result<(Read, String), Failure> {
        let prepare = Arc::clone(&self.prepare);
        on_thread(Arc::clone(&self.threads), move || {
            // The cheapest to refuse comes first.
            let encoded = prepare.response(&response)?;
            let prompt = prepare.prompt(&prompt)?;
            let image_key = prepare.image_key(&image);
            Ok((Read { image_key, prompt, response: encoded }, response))
        })
        .await
    }

    /// Joins the decoding of an image. Takes the bytes, so that only one item of a group keeps them.
    fn decode(&self, image_key: [u8; 32], image: Bytes) -> Flight {
        let (prepare, threads) = (Arc::clone(&self.prepare), Arc::clone(&self.threads));
        self.flights.join(image_key, move || {
            Box::pin(on_thread(threads, move || -> Result<Pixels, Failure> {
                prepare.pixels(&image)
            }))
        })
    }
}

fn cache_use(reuse: Reuse) -> CacheUse {
    let rows = u32::try_from(reuse.prefix_rows).unwrap_or(u32::MAX);
    let (reused, computed) = if reuse.prefix { (rows, 0) } else { (0, rows) };
    CacheUse {
        prefix_positions_reused: reused,
        prefix_positions_computed: computed,
        vision_reused: reuse.vision,
    }
}

/// Runs blocking work off the async threads once a thread is free. A panic there is a failure.
async fn on_thread<T: Send + 'static>(
    threads: Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    // The semaphore is never closed.
    let permit = threads.acquire_owned().await.map_err(|_| failures::worker_failed())?;
    let done = spawn_blocking(move || {
        // The thread is busy until the work ends, even where nobody waits for it any more.
        let _permit = permit;
        work()
    });
    done.await.unwrap_or_else(|error| {
        tracing::error!(panicked = error.is_panic(), "preparing an item failed");
        Err(failures::worker_failed())
    })
}

#[cfg(test)]
mod tests;
