use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sleuth_core::{ByteSpan, ErrorClass, Options, Reason};
use sleuth_engine::EngineSettings;
use sleuth_engine::fake::{Act, FakeModel, Remote};
use tokio::sync::oneshot;

use super::super::*;
use crate::intake::Held;

/// One token per byte, one pixel per image, and a count of what was done.
#[derive(Clone, Default)]
pub(super) struct FakePrepare {
    decoded: Arc<AtomicUsize>,
    /// What decoding waits for, if anything.
    hold: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
}

impl Prepare for FakePrepare {
    fn image_key(&self, image: &[u8]) -> [u8; 32] {
        *blake3::hash(image).as_bytes()
    }

    fn pixels(&self, image: &[u8]) -> Result<Pixels, Failure> {
        self.decoded.fetch_add(1, Ordering::SeqCst);
        let hold = self.hold.lock().unwrap().take();
        if let Some(hold) = hold {
            let _ = hold.blocking_recv();
        }
        match image {
            b"damaged" => {
                let (class, reason) = (ErrorClass::InvalidRequest, Reason::IMAGE_DAMAGED);
                Err(Failure::new(class, reason, "damaged").at("context.image.data"))
            }
            b"panic" => panic!("scripted"),
            _ => Ok(Pixels::try_new(1, 1, vec![f32::from(image[0]); 3].into()).unwrap()),
        }
    }

    fn prompt(&self, text: &str) -> Result<Arc<[u32]>, Failure> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn response(&self, text: &str) -> Result<Encoded, Failure> {
        let spans = (0..text.len() as u32).map(|n| ByteSpan::try_new(n, n + 1).unwrap());
        Ok(Encoded { ids: text.bytes().map(u32::from).collect(), spans: spans.collect() })
    }
}

pub(super) fn card() -> ModelCard {
    ModelCard {
        name: "mini".to_owned(),
        version: "v1".to_owned(),
        architecture: "Fake".to_owned(),
        adapter: Some("tldr".to_owned()),
        prompt: "own".to_owned(),
        threshold: 0.5,
        causal_suffix: true,
        max_prompt_tokens: 16,
        max_response_tokens: 16,
    }
}

pub(super) fn request(image: &'static [u8], response: &str) -> ScoreRequest<Bytes> {
    ScoreRequest {
        image: Bytes::from_static(image),
        prompt: Some("what?".to_owned()),
        response: response.to_owned(),
        adapter: None,
        required_version: None,
        options: Options::default(),
        timeout: None,
        priority: 0,
    }
}

pub(super) struct Bench {
    pub(super) service: ScoreService,
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
        let service = ScoreService::new(card(), prepare.clone(), engine, settings);
        Self { service, prepare, remote }
    }

    /// Decoding waits until the sender is used or dropped.
    pub(super) fn hold_decoding(&self) -> oneshot::Sender<()> {
        let (go, hold) = oneshot::channel();
        *self.prepare.hold.lock().unwrap() = Some(hold);
        go
    }

    pub(super) fn decoded(&self) -> usize {
        self.prepare.decoded.load(Ordering::SeqCst)
    }

    pub(super) fn spawn(&self, request: ScoreRequest<Bytes>) -> tokio::task::JoinHandle<Verdict> {
        let service = self.service.clone();
        tokio::spawn(async move { service.score(request).await })
    }

    pub(super) async fn begun(&self, batches: usize) {
        let remote = self.remote.clone();
        spawn_blocking(move || remote.wait_for_batches(batches)).await.unwrap();
    }

    /// Waits until a condition that other tasks bring about holds.
    pub(super) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn queued(&self) -> usize {
        self.service.shared.engine.stats().queued_items
    }

    pub(super) fn assert_nothing_is_held(&self) {
        let shared = &self.service.shared;
        let stats = shared.engine.stats();
        assert_eq!((stats.queued_items, stats.queued_tokens), (0, 0));
        assert_eq!(shared.intake.held(), Held::default());
        assert_eq!(shared.flights.len(), 0);
    }
}

pub(super) type Verdict = Result<Scored, Failure>;
