use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use sleuth_core::{
    ByteSpan, Context, Encoded, Failure, ImageSource, Load, ModelCard, Pixels, PrefixChanges,
    Prepared, ScoreRequest, Scored, Timing, realign,
};
use sleuth_engine::{EngineScores, Reservation, Submission};
use sleuth_telemetry::traces::{self, Phase};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use crate::admission::Admission;
use crate::flights::{Flight as Decoding, Flights};
use crate::images::ImageStore;
use crate::intake::{Intake, Share};
use crate::item::{self, ImageFile, Item, Ready, cache_use};
use crate::load::load_of;
use crate::once::{Entered, Fingerprint, Flight, Once, OnceKey, Outcome, Slot, Stored};
use crate::open::{INLINE_TEXT, OpenItem};
use crate::registry::Registry;
use crate::stats::{HeldBack, PhaseStats, Phases};
use crate::threads::{on_thread, on_thread_within};
use crate::{
    BoxFuture, Caller, Corrections, Correctors, Corrects, LoadedModel, Scorer, ServiceSettings,
    ServiceStats, Tokenized, Told, check, failures,
};

/// Scores items: checks, prepares, batches with all other callers, aggregates.
#[derive(Clone)]
pub struct ScoreService {
    pub(crate) shared: Arc<Inner>,
    corrections: Option<Arc<Corrections>>,
}

pub(crate) struct Inner {
    pub(crate) registry: Registry,
    pub(crate) admission: Arc<Admission>,
    pub(crate) once: Once,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) settings: ServiceSettings,
    /// One permit for each thread that may prepare.
    threads: Arc<Semaphore>,
    pub(crate) held_back: HeldBack,
    pub(crate) phases: Phases,
}

/// An item's texts as tokens, and the name of its pixels.
struct Read {
    image_key: [u8; 32],
    prompt: Arc<[u32]>,
    response: Encoded,
}

/// An item that was asked for under a key. Whoever asked first may leave before it is done.
struct Asked {
    key: String,
    item: Item,
    response: String,
    received: Instant,
    context: Context<Bytes>,
}

/// Files up to this size are hashed on an async thread: about a tenth of a millisecond.
const INLINE_HASH: usize = 256 << 10;

// === impl ScoreService ===

impl ScoreService {
    /// Puts a service together over one version.
    pub fn new(model: LoadedModel, settings: ServiceSettings) -> Self {
        let threads = settings.prepare_threads.get().min(Semaphore::MAX_PERMITS);
        let intake = Intake::new(settings.max_preparing_items, settings.max_preparing_bytes);
        let images = ImageStore::new(settings.image_store_bytes, settings.max_image_bytes);
        Self {
            shared: Arc::new(Inner {
                registry: Registry::new(model, settings.groups),
                admission: Arc::new(Admission::new(settings.admission.clone())),
                once: Once::new(settings.idempotency),
                images: Arc::new(images),
                intake: Arc::new(intake),
                flights: Arc::new(Flights::new(settings.pixel_cache_bytes)),
                threads: Arc::new(Semaphore::new(threads)),
                held_back: HeldBack::default(),
                phases: Phases::default(),
                settings,
            }),
            corrections: None,
        }
    }

    /// The same service, which also corrects.
    #[must_use]
    pub fn with_corrections(self, correctors: Correctors) -> Self {
        let max_timeout = self.shared.settings.max_timeout;
        let scorer = Self { shared: Arc::clone(&self.shared), corrections: None };
        let corrections = Corrections::new(Arc::new(scorer), correctors, max_timeout);
        Self { corrections: Some(Arc::new(corrections)), ..self }
    }

    /// The use case "correct", where correctors were given.
    pub fn corrections(&self) -> Option<&Arc<Corrections>> {
        self.corrections.as_ref()
    }

    /// The version that scores items that ask for none.
    pub fn model(&self) -> Arc<ModelCard> {
        Arc::clone(self.shared.registry.default_model().card())
    }

    /// The versions that are loaded.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// What was done so far and what is held now.
    pub fn stats(&self) -> ServiceStats {
        self.shared.stats()
    }

    /// How long items took outside of engines.
    pub fn phases(&self) -> PhaseStats {
        self.shared.phases.get()
    }
}

impl Scorer for ScoreService {
    fn score<'a>(
        &'a self,
        caller: &'a Caller,
        request: ScoreRequest<Bytes>,
    ) -> BoxFuture<'a, Result<Scored, Failure>> {
        Box::pin(self.shared.score(caller, request))
    }

    fn open<'a>(
        &'a self,
        caller: &'a Caller,
        context: Context<Bytes>,
    ) -> BoxFuture<'a, Result<OpenItem, Failure>> {
        Box::pin(self.shared.open(caller, context))
    }

    fn images(&self) -> &Arc<ImageStore> {
        &self.shared.images
    }

    fn tokenize(&self, text: String) -> BoxFuture<'_, Result<Tokenized, Failure>> {
        let model = self.shared.registry.default_model();
        let work = move || {
            let encoded = model.prepare.response(&text).map_err(|failure| failure.at("text"))?;
            Ok(Tokenized { encoded, version: model.card().version.clone() })
        };
        Box::pin(on_thread(Arc::clone(&self.shared.threads), work))
    }

    fn model_of<'a>(&'a self, adapter: &'a str) -> BoxFuture<'a, Result<Arc<ModelCard>, Failure>> {
        let model = self.shared.registry.model_of(Some(adapter).filter(|name| !name.is_empty()));
        let card = model.map(|model| Arc::clone(model.card())).ok_or_else(failures::no_adapter);
        Box::pin(std::future::ready(card))
    }

    fn corrects(&self) -> Option<Arc<dyn Corrects>> {
        self.corrections.clone().map(|corrections| corrections as _)
    }

    fn load(&self) -> Option<Load> {
        Some(load_of(&self.shared.registry.all()))
    }

    fn prefix_changes(&self, told: &mut Told) -> PrefixChanges {
        told.update(&self.shared.registry.all())
    }
}

impl fmt::Debug for ScoreService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScoreService")
            .field("versions", &self.shared.registry.versions())
            .finish_non_exhaustive()
    }
}

// === impl Inner ===

impl Inner {
    async fn score(
        self: &Arc<Self>,
        caller: &Caller,
        request: ScoreRequest<Bytes>,
    ) -> Result<Scored, Failure> {
        let received = Instant::now();
        let _presence = self.admission.enter(caller)?;
        let deadline = self.deadline(received, request.context.timeout);
        let answer = self.answer(caller, request, received, deadline);
        let Some(deadline) = deadline else { return answer.await };
        timeout_at(deadline, answer).await.unwrap_or_else(|_| Err(failures::deadline()))
    }

    /// When an item's time is over. A limit beyond what the clock can count is no limit.
    pub(crate) fn deadline(&self, received: Instant, timeout: Option<Duration>) -> Option<Instant> {
        let most = self.settings.max_timeout;
        received.checked_add(timeout.map_or(most, |timeout| timeout.min(most)))
    }

    async fn answer(
        self: &Arc<Self>,
        caller: &Caller,
        request: ScoreRequest<Bytes>,
        received: Instant,
        deadline: Option<Instant>,
    ) -> Result<Scored, Failure> {
        let ScoreRequest { context, response, policy } = request;
        check::response(&response)?;
        let policy = policy.map(|policy| check::policy(&policy, &response)).transpose()?;
        let digest = self.digest_of(&context).await?;
        let item = match self.item_of(caller, &context, digest) {
            Ok(item) => item,
            Err(failure) => {
                let stored = self.stored(caller, &context, &digest, &response);
                let scored = stored.ok_or(failure)?.replay()?;
                return Ok(aligned(scored, policy.as_deref(), &context));
            }
        };
        let scored = match context.idempotency_key.clone() {
            None => {
                let scored = self.compute(&item, response, received, deadline).await?;
                self.registry.scored(caller, &context);
                Arc::new(scored)
            }
            Some(key) => {
                let asked = Asked { key, item, response, received, context: context.clone() };
                self.compute_once(asked).await?
            }
        };
        let start = Instant::now();
        let scored = aligned(scored, policy.as_deref(), &context);
        if policy.is_some() {
            self.phases.did(Phase::Realign, start);
        }
        Ok(scored)
    }

    /// Resolves an item's choices. Nothing is decoded or tokenised.
    pub(crate) async fn item(
        &self,
        caller: &Caller,
        context: &Context<Bytes>,
    ) -> Result<Item, Failure> {
        let digest = self.digest_of(context).await?;
        self.item_of(caller, context, digest)
    }

    fn item_of(
        &self,
        caller: &Caller,
        context: &Context<Bytes>,
        digest: [u8; 32],
    ) -> Result<Item, Failure> {
        let model = self.registry.resolve(caller, context)?;
        Item::new(caller.clone(), model, context, digest)
    }

    /// The verdict of an item whose version is gone, if it has one and that will do.
    fn stored(
        &self,
        caller: &Caller,
        context: &Context<Bytes>,
        digest: &[u8; 32],
        response: &str,
    ) -> Option<Arc<Stored>> {
        let key = context.idempotency_key.clone()?;
        let key = OnceKey { tenant: Arc::clone(&caller.tenant), key };
        let fingerprint = Fingerprint::new(item::asked(context, digest), Some(response));
        let required = context.required_version.as_deref().filter(|v| !v.is_empty());
        self.once
            .stored(&key, fingerprint)
            .filter(|stored| required.is_none_or(|version| version == stored.version))
    }

    /// BLAKE3 of the image that an item names or brings.
    async fn digest_of(&self, context: &Context<Bytes>) -> Result<[u8; 32], Failure> {
        match &context.image {
            ImageSource::Digest(digest) => Ok(*digest),
            ImageSource::Data(data) if data.is_empty() => Err(failures::no_image()),
            ImageSource::Data(data) => self.digest(data.clone()).await,
        }
    }

    async fn digest(&self, data: Bytes) -> Result<[u8; 32], Failure> {
        if data.len() <= INLINE_HASH {
            return Ok(*blake3::hash(&data).as_bytes());
        }
        let hash = move || Ok(*blake3::hash(&data).as_bytes());
        on_thread(Arc::clone(&self.threads), hash).await
    }

    /// Scores an item for one caller. Dropping the future gives it up wherever it is.
    async fn compute(
        &self,
        item: &Item,
        response: String,
        received: Instant,
        deadline: Option<Instant>,
    ) -> Result<Scored, Failure> {
        let (response, ready) = self.prepare(item, response).await?;
        let prepare = received.elapsed();
        let (submission, run) = ready.submit(deadline);
        let scores = submission.await.map_err(failures::from_engine)?;
        run.verdict(item, &response, scores, prepare)
    }

    /// Scores an item once for all who ask for it under one key, and keeps its verdict.
    async fn compute_once(self: &Arc<Self>, asked: Asked) -> Outcome {
        let Asked { key, item, response, .. } = &asked;
        let key = OnceKey { tenant: Arc::clone(&item.caller.tenant), key: key.clone() };
        let fingerprint = item.fingerprint(Some(response));
        let version = &item.model.card().version;
        let required = asked.context.required_version.is_some();
        match self.once.enter(&key, fingerprint, version, required)? {
            Entered::Replay(stored) => stored.replay(),
            Entered::Join(flight, _seat) => flight.outcome().await,
            Entered::Open(opened, _seat) => {
                self.once.same(opened.complete(response))?;
                opened.outcome().await
            }
            Entered::Start(flight, _seat) => {
                let life = Arc::clone(self).live(key, Arc::clone(&flight), asked);
                self.once.counters.started.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(traces::within(traces::current(), life).in_current_span());
                flight.outcome().await
            }
        }
    }

    /// A flight from its start to its end, whoever waits for it.
    async fn live(self: Arc<Self>, key: OnceKey, flight: Arc<Flight>, asked: Asked) {
        let Asked { item, response, received, context, .. } = asked;
        let work = AssertUnwindSafe(self.fly(&flight, &item, response, received)).catch_unwind();
        let outcome = work.await.unwrap_or_else(|_| Some(Err(failures::worker_failed())));
        let Some(outcome) = outcome else {
            let own = |slot: &Slot| matches!(slot, Slot::Whole(it) if Arc::ptr_eq(it, &flight));
            return self.once.give_up(&key, own);
        };
        if outcome.is_ok() {
            self.registry.scored(&item.caller, &context);
        }
        self.once.land(&key, &flight, outcome.map(Arc::new));
    }

    /// Computes an item for a flight. `None` where all who waited left before it ran.
    async fn fly(
        &self,
        flight: &Flight,
        item: &Item,
        response: String,
        received: Instant,
    ) -> Option<Result<Scored, Failure>> {
        let deserted = async {
            loop {
                flight.attendance.deserted().await;
                if flight.attendance.end_if_deserted(|| true) {
                    return;
                }
            }
        };
        let ready = tokio::select! {
            ready = self.prepare(item, response) => ready,
            () = deserted => return None,
        };
        let (response, ready) = match ready {
            Ok(ready) => ready,
            Err(failure) => return Some(Err(failure)),
        };
        let prepare = received.elapsed();
        let (mut submission, run) = ready.submit(self.deadline(received, None));
        let scores = loop {
            tokio::select! {
                scores = &mut submission => break scores,
                () = flight.attendance.deserted() => {
                    if flight.attendance.end_if_deserted(|| submission.give_up_waiting()) {
                        return None;
                    }
                }
            }
        };
        let verdict = scores
            .map_err(failures::from_engine)
            .and_then(|scores| run.verdict(item, &response, scores, prepare));
        Some(verdict)
    }

    /// Tokenises an item, takes room for it, and then has its image decoded.
    pub(crate) async fn prepare(
        &self,
        item: &Item,
        response: String,
    ) -> Result<(String, Ready), Failure> {
        let engine = &item.model.engine;
        let share = self.admit(item)?;
        let start = Instant::now();
        let (read, response) = self.read(item, response).await?;
        self.phases.did(Phase::Tokenise, start);
        check::lengths(&read.prompt, &read.response, item.model.card())?;
        let Read { image_key, prompt, response: encoded } = read;
        let tokens = encoded.ids.len();
        // The cost is known now, and nothing is decoded yet: the last point to refuse.
        let forecast = engine.forecast(image_key, Arc::clone(&prompt), tokens);
        let reservation = engine
            .reserve(image_key, Arc::clone(&prompt), tokens, item.terms())
            .map_err(failures::from_engine)?;
        self.admission.charge(&item.caller, forecast.item, forecast.wait)?;
        let (pixels, flight) = self.pixels(item, image_key).await?;
        drop(share);
        item.needs_prefix(image_key, &prompt);
        Ok((response, Ready { reservation, pixels, image_key, prompt, encoded, flight }))
    }

    /// Refuses, before any work, what has no chance.
    pub(crate) fn admit(&self, item: &Item) -> Result<Share, Failure> {
        let engine = &item.model.engine;
        engine.check_room().map_err(failures::from_engine)?;
        self.admission.check(&item.caller, engine.predicted_wait())?;
        let bytes = item.image.data.as_ref().map_or(0, Bytes::len);
        self.intake.admit(bytes).ok_or_else(|| failures::queue_full(engine.backlog()))
    }

    /// Tokenises an item's texts. Gives the response back.
    async fn read(&self, item: &Item, response: String) -> Result<(Read, String), Failure> {
        let model = Arc::clone(&item.model);
        let digest = item.image.digest;
        let read = move |model: &LoadedModel, prompt: &str, response: &str| {
            // The cheapest to refuse comes first.
            let encoded = model.prepare.response(response)?;
            let prompt = model.prompt(prompt)?;
            let image_key = model.prepare.image_key(&digest);
            Ok(Read { image_key, prompt, response: encoded })
        };
        if item.prompt.len().max(response.len()) <= INLINE_TEXT {
            let read = caught(|| read(&model, &item.prompt, &response))?;
            return Ok((read, response));
        }
        let prompt = item.prompt.clone();
        let work = move || Ok((read(&model, &prompt, &response)?, response));
        on_thread(Arc::clone(&self.threads), work).await
    }

    /// The prompt's tokens and the name of an image's pixels.
    pub(crate) async fn read_prompt(&self, item: &Item) -> Result<(Arc<[u32]>, [u8; 32]), Failure> {
        let (model, prompt) = (Arc::clone(&item.model), item.prompt.clone());
        let image_key = model.prepare.image_key(&item.image.digest);
        let prompt = if prompt.len() <= INLINE_TEXT {
            caught(|| model.prompt(&prompt))?
        } else {
            on_thread(Arc::clone(&self.threads), move || model.prompt(&prompt)).await?
        };
        check::prompt_length(&prompt, item.model.card())?;
        Ok((prompt, image_key))
    }

    /// An image's pixels: kept, or decoded once for all items that hold it.
    pub(crate) async fn pixels(
        &self,
        item: &Item,
        image_key: [u8; 32],
    ) -> Result<(Pixels, Option<Decoding>), Failure> {
        let ImageFile { digest, data } = &item.image;
        let start = Instant::now();
        // First: pixels are kept for all tenants, and a digest alone must not give another's image.
        let data = match data {
            Some(data) => data.clone(),
            None => self.images.get(&item.caller, *digest)?,
        };
        if let Some(pixels) = self.flights.kept(&image_key) {
            return Ok((pixels, None));
        }
        let (model, threads) = (Arc::clone(&item.model), Arc::clone(&self.threads));
        let limit = Some(self.settings.max_decode_time);
        let flight = self.flights.join(image_key, move || {
            Box::pin(on_thread_within(threads, limit, move || model.prepare.pixels(&data)))
        });
        let pixels = flight.pixels().await?;
        self.phases.did(Phase::Decode, start);
        Ok((pixels, Some(flight)))
    }

    fn stats(&self) -> ServiceStats {
        let (appended_bytes, held_back_bytes) = self.held_back.get();
        ServiceStats {
            idempotency: self.once.stats(),
            images: self.images.stats(),
            appended_bytes,
            held_back_bytes,
        }
    }
}

/// What is left to do for an item that runs.
pub(crate) struct Run {
    encoded: Encoded,
    _flight: Option<Decoding>,
}

// === impl Ready ===

impl Ready {
    fn submit(self, deadline: Option<Instant>) -> (Submission, Run) {
        let (reservation, prepared, run) = self.split();
        (reservation.submit(prepared, deadline), run)
    }

    /// What the engine takes, and what is left to do afterwards.
    pub(crate) fn split(self) -> (Reservation, Prepared, Run) {
        let Self { reservation, pixels, image_key, prompt, encoded, flight } = self;
        let response = Arc::from(encoded.ids.as_slice());
        let prepared = Prepared { pixels, image_key, prompt, response };
        (reservation, prepared, Run { encoded, _flight: flight })
    }
}

// === impl Run ===

impl Run {
    pub(crate) fn verdict(
        &self,
        item: &Item,
        response: &str,
        scores: EngineScores,
        prepare: Duration,
    ) -> Result<Scored, Failure> {
        let EngineScores { logits, queue, compute, reuse, batch, .. } = scores;
        traces::current().ran(queue, &batch);
        let timing = Timing { prepare, queue, compute };
        item.verdict(response, &self.encoded, &logits, timing, cache_use(reuse))
    }
}

/// The rewards in the tokens that this caller asked for.
fn aligned(scored: Arc<Scored>, policy: Option<&[ByteSpan]>, context: &Context<Bytes>) -> Scored {
    let mut scored = Arc::unwrap_or_clone(scored);
    scored.policy = policy.map(|spans| realign(&scored.tokens, spans, context.options.realignment));
    scored
}

/// The tokenizer library may panic on what it did not expect: that costs this item only.
fn caught<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    std::panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(failures::worker_failed()))
}

#[cfg(test)]
mod tests;
