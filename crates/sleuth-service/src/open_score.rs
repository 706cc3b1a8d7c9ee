//! The life of an item whose response is still being generated.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::FutureExt as _;
use sleuth_core::{CacheUse, Context, Encoded, Failure, Pixels, Scored, Timing, TokenReward};
use sleuth_engine::{EngineError, EngineScores, OpenItem as EngineItem};
use sleuth_telemetry::traces::{self, Phase};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::admission::Presence;
use crate::attendance::Seat;
use crate::item::{Item, cache_use};
use crate::once::{OnceKey, Outcome, Slot, Stored};
use crate::open::{Chunk, Held, OpenItem, Opened, State};
use crate::score::Inner;
use crate::{Caller, Growing, check, failures};

/// What an item needs on its way.
struct Way {
    item: Item,
    key: Option<OnceKey>,
    context: Context<Bytes>,
    received: Instant,
}

/// An item in the engine, and what it stands on.
struct InEngine {
    item: EngineItem,
    image_key: [u8; 32],
    prompt: Arc<[u32]>,
}

/// Takes the bytes of a response whose verdict is stored.
struct Collected(Vec<u8>);

// === impl Inner ===

impl Inner {
    /// Opens an item, or holds one that is open under the same key.
    pub(crate) async fn open(
        self: &Arc<Self>,
        caller: &Caller,
        context: Context<Bytes>,
    ) -> Result<OpenItem, Failure> {
        let received = Instant::now();
        let presence = self.admission.enter(caller)?;
        let deadline = self.deadline(received, context.timeout);
        let item = self.item(caller, &context).await?;
        if !item.model.card().causal_suffix {
            return Err(failures::from_engine(EngineError::NotIncremental));
        }
        let key = context.idempotency_key.clone();
        let key = key.map(|key| OnceKey { tenant: Arc::clone(&caller.tenant), key });
        let (opened, seat, is_new) = match &key {
            None => {
                let (opened, seat) = self.begin(&item, None)?;
                (opened, seat, true)
            }
            Some(key) => self.begin_once(key, &item, &context)?,
        };
        if is_new {
            if key.is_some() {
                self.once.counters.started.fetch_add(1, Ordering::Relaxed);
            }
            let way = Way { item, key, context, received };
            self.spawn(way, Arc::clone(&opened));
        }
        Ok(hold(opened, seat, presence, deadline))
    }

    fn begin_once(
        &self,
        key: &OnceKey,
        item: &Item,
        context: &Context<Bytes>,
    ) -> Result<(Arc<Opened>, Seat, bool), Failure> {
        let required = context.required_version.is_some();
        let fingerprint = item.fingerprint(None);
        let version = &item.model.card().version;
        let start = |stored| self.begin(item, stored);
        self.once.enter_open(key, fingerprint.context, version, required, start)
    }

    fn begin(
        &self,
        item: &Item,
        replay: Option<Arc<Stored>>,
    ) -> Result<(Arc<Opened>, Seat), Failure> {
        let response: Box<dyn Growing> = match &replay {
            Some(_) => Box::new(Collected(Vec::new())),
            None => item.model.prepare.grow(),
        };
        let state = State::new(response, item.options.realignment, replay);
        let version = item.model.card().version.clone();
        Opened::new(item.fingerprint(None), version, self.settings.open, state)
            .ok_or_else(failures::worker_failed)
    }

    /// Runs the item on its own, since it may outlive the one who opened it.
    fn spawn(self: &Arc<Self>, way: Way, opened: Arc<Opened>) {
        let service = Arc::clone(self);
        let life = async move {
            let is_keyed = way.key.is_some();
            let outcome = tokio::select! {
                outcome = AssertUnwindSafe(service.drive(&way, &opened)).catch_unwind() => outcome,
                () = opened.abandoned(is_keyed) => return service.abandon(&way, &opened),
            };
            let outcome = outcome.unwrap_or_else(|_| Err(failures::worker_failed()));
            service.finish(&way, &opened, outcome.map(Arc::new));
        };
        tokio::spawn(traces::within(traces::current(), life).in_current_span());
    }

    fn abandon(&self, way: &Way, opened: &Arc<Opened>) {
        if let Some(key) = &way.key {
            self.once.give_up(key, |slot| is(slot, opened));
        }
    }

    fn finish(&self, way: &Way, opened: &Arc<Opened>, outcome: Outcome) {
        if outcome.is_ok() {
            self.registry.scored(&way.item.caller, &way.context);
        }
        if let Some(key) = &way.key {
            let fingerprint = way.item.fingerprint(Some(&opened.lock().text()));
            self.once.land_open(key, opened, fingerprint, &outcome);
        }
        self.held_back.count(&opened.lock());
        opened.end(outcome);
    }

    /// Scores what is appended, until the response is whole or something fails.
    async fn drive(&self, way: &Way, opened: &Opened) -> Result<Scored, Failure> {
        let item = &way.item;
        // While the image is decoded, text may come and fail.
        let mut inside = tokio::select! {
            biased;
            inside = self.enter_engine(item) => inside?,
            failure = opened.failure() => return Err(failure),
        };
        let mut timing = Timing { prepare: way.received.elapsed(), ..Timing::default() };
        let mut cache = CacheUse::default();
        let mut is_first = true;
        loop {
            let Chunk { ids, spans, is_last } = opened.chunk().await?;
            if !ids.is_empty() {
                let tokens = inside.item.tokens() + ids.len();
                check::response_length(tokens, item.model.card())?;
                let scores = self.append(item, &mut inside, ids.into()).await?;
                traces::current().ran(scores.queue, &scores.batch);
                timing.queue += scores.queue;
                timing.compute += scores.compute;
                if is_first {
                    cache = cache_use(scores.reuse);
                    is_first = false;
                }
                opened.push(rewards(&spans, &scores)?);
            }
            if is_last {
                let state = opened.lock();
                return item.verdict(
                    &state.text(),
                    state.settled(),
                    &state.logits(),
                    timing,
                    cache,
                );
            }
        }
    }

    /// Takes room, has the image decoded and its prefix computed.
    async fn enter_engine(&self, item: &Item) -> Result<InEngine, Failure> {
        let engine = &item.model.engine;
        let share = self.admit(item)?;
        let start = Instant::now();
        let (prompt, image_key) = self.read_prompt(item).await?;
        self.phases.did(Phase::Tokenise, start);
        let forecast = engine.forecast(image_key, Arc::clone(&prompt), 0);
        self.admission.charge(&item.caller, forecast.item, forecast.wait)?;
        let (pixels, _flight): (Pixels, _) = self.pixels(item, image_key).await?;
        drop(share);
        item.needs_prefix(image_key, &prompt);
        let (inside, prefix) = engine
            .open(pixels, image_key, Arc::clone(&prompt), item.terms(), None)
            .map_err(failures::from_engine)?;
        let computed = prefix.await.map_err(failures::from_engine)?;
        traces::current().ran(computed.queue, &computed.batch);
        Ok(InEngine { item: inside, image_key, prompt })
    }

    /// Scores settled tokens. An item that is under way is not refused for lack of room: it waits.
    async fn append(
        &self,
        item: &Item,
        inside: &mut InEngine,
        ids: Arc<[u32]>,
    ) -> Result<EngineScores, Failure> {
        let prompt = Arc::clone(&inside.prompt);
        let cost = item.model.engine.forecast(inside.image_key, prompt, ids.len()).item;
        self.admission.spend(&item.caller, cost);
        loop {
            match inside.item.append(Arc::clone(&ids), None).await {
                Err(EngineError::QueueFull { retry_after }) => {
                    tokio::time::sleep(retry_after).await;
                }
                outcome => return outcome.map_err(failures::from_engine),
            }
        }
    }
}

fn hold(
    opened: Arc<Opened>,
    seat: Seat,
    presence: Presence,
    deadline: Option<Instant>,
) -> OpenItem {
    let changes = opened.hold();
    OpenItem::new(Held { opened, changes, read: 0, deadline, _seat: seat, _presence: presence })
}

fn is(slot: &Slot, opened: &Arc<Opened>) -> bool {
    matches!(slot, Slot::Open(own) if Arc::ptr_eq(own, opened))
}

fn rewards(
    spans: &[sleuth_core::ByteSpan],
    scores: &EngineScores,
) -> Result<Vec<TokenReward>, Failure> {
    if spans.len() != scores.logits.len() {
        return Err(failures::worker_failed());
    }
    let pairs = spans.iter().zip(&scores.logits);
    Ok(pairs.map(|(&span, &logit)| TokenReward::from_logit(span, logit)).collect())
}

// === impl Collected ===

impl Growing for Collected {
    fn push(&mut self, bytes: &[u8]) -> Result<Encoded, Failure> {
        self.0.extend_from_slice(bytes);
        Ok(Encoded::default())
    }

    fn finish(&mut self) -> Result<Encoded, Failure> {
        Ok(Encoded::default())
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn held_back(&self) -> usize {
        0
    }
}
