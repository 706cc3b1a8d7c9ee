use sleuth_engine::fake::{Act, FakeModel, Remote};
use sleuth_engine::{Engine, EngineSettings};

use super::super::*;
use crate::fake::{FakePrepare, card};
use crate::intake::Held;

pub(super) fn request(image: &'static [u8], response: &str) -> ScoreRequest<Bytes> {
    let mut request = ScoreRequest::new(Bytes::from_static(image), response);
    request.context.prompt = Some("what?".to_owned());
    request
}

pub(super) struct Bench {
    pub(super) service: ScoreService,
    pub(super) engine: Engine,
    pub(super) prepare: FakePrepare,
    pub(super) remote: Remote,
}

impl Bench {
    pub(super) async fn new(script: impl IntoIterator<Item = Act>) -> Self {
        Self::with(script, EngineSettings::default(), ServiceSettings::default()).await
    }

    pub(super) async fn with(
        script: impl IntoIterator<Item = Act>,
        engine: EngineSettings,
        settings: ServiceSettings,
    ) -> Self {
        let (model, remote) = FakeModel::new(script);
        let engine = Engine::start(model.builder(), engine).await.unwrap();
        let prepare = FakePrepare::default();
        let model = LoadedModel::new(card(), prepare.clone(), engine.clone());
        let service = ScoreService::new(model, settings);
        Self { service, engine, prepare, remote }
    }

    pub(super) async fn score(&self, request: ScoreRequest<Bytes>) -> Verdict {
        self.service.score(&Caller::default(), request).await
    }

    pub(super) fn spawn(&self, request: ScoreRequest<Bytes>) -> tokio::task::JoinHandle<Verdict> {
        let service = self.service.clone();
        tokio::spawn(async move { service.score(&Caller::default(), request).await })
    }

    pub(super) async fn begun(&self, batches: usize) {
        let remote = self.remote.clone();
        tokio::task::spawn_blocking(move || remote.wait_for_batches(batches)).await.unwrap();
    }

    /// Waits until a condition that other tasks bring about holds.
    pub(super) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn queued(&self) -> usize {
        self.engine.stats().queued_items
    }

    pub(super) fn assert_nothing_is_held(&self) {
        let shared = &self.service.shared;
        let stats = self.engine.stats();
        assert_eq!((stats.queued_items, stats.queued_tokens), (0, 0));
        assert_eq!(shared.intake.held(), Held::default());
        assert_eq!(shared.flights.len(), 0);
    }
}

/// Lets time pass for timers alone. Elsewhere time is real, since the device's thread does not
/// know of any other.
pub(super) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

pub(super) type Verdict = Result<Scored, Failure>;
