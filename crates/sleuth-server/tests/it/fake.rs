use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sleuth_core::{
    ByteSpan, CacheUse, Context, Encoded, ErrorClass, Failure, ModelCard, Reason, ScoreRequest,
    Scored, SentenceReward, Timing, TokenReward,
};
use sleuth_service::{BoxFuture, Caller, ImageStore, OpenItem, Scorer, Tokenized};
use tokio::sync::Semaphore;

/// Does as the first word of the response says:
/// `gate` waits for [`Fake::open_gate`], `sleep MS` sleeps, `tokens N` gives N tokens, `panic`,
/// `nan`, `none` and `full` fail in their ways; all else is scored at once.
pub(crate) struct Fake {
    card: Arc<ModelCard>,
    images: Arc<ImageStore>,
    gate: Semaphore,
    pub(crate) started: AtomicUsize,
    pub(crate) finished: AtomicUsize,
    pub(crate) dropped: AtomicUsize,
}

/// Counts how work ended, by whether it was marked as finished.
struct Work<'a> {
    fake: &'a Fake,
    finished: bool,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        let card = ModelCard {
            name: "fake".to_owned(),
            version: "v1".to_owned(),
            architecture: "Fake".to_owned(),
            adapter: Some("tldr".to_owned()),
            prompt: "Describe.".to_owned(),
            threshold: 0.5,
            causal_suffix: true,
            max_prompt_tokens: 64,
            max_response_tokens: 512,
        };
        Arc::new(Self {
            card: Arc::new(card),
            images: Arc::new(ImageStore::new(1 << 20, 64 << 10)),
            gate: Semaphore::new(0),
            started: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
        })
    }

    /// Lets `n` gated items go on.
    pub(crate) fn open_gate(&self, n: usize) {
        self.gate.add_permits(n);
    }

    pub(crate) fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }

    pub(crate) fn finished(&self) -> usize {
        self.finished.load(Ordering::SeqCst)
    }

    pub(crate) fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }

    async fn work(&self, request: ScoreRequest<Bytes>) -> Result<Scored, Failure> {
        self.started.fetch_add(1, Ordering::SeqCst);
        let mut work = Work { fake: self, finished: false };
        let mut words = request.response.split(' ');
        let (first, argument) = (words.next().unwrap_or(""), words.next());
        let number = || argument.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        let mut scored = scored(&self.card, &request, 2);
        match first {
            "gate" => self.gate.acquire().await.unwrap().forget(),
            "sleep" => tokio::time::sleep(Duration::from_millis(number())).await,
            "tokens" => scored = self::scored(&self.card, &request, number() as u32),
            "panic" => panic!("as the response says"),
            "nan" => scored.tokens[0].logit = f32::NAN,
            "none" => scored.tokens.clear(),
            "full" => {
                work.finished = true;
                return Err(Failure::new(ErrorClass::Overload, Reason::QUEUE_FULL, "full")
                    .retry_after(Duration::from_secs(3)));
            }
            _ => {}
        }
        work.finished = true;
        Ok(scored)
    }
}

fn scored(card: &ModelCard, request: &ScoreRequest<Bytes>, tokens: u32) -> Scored {
    let tokens: Vec<_> = (0..tokens)
        .map(|n| {
            let span = ByteSpan::try_new(n, n + 1).unwrap();
            TokenReward::from_logit(span, n as f32 * 0.37 - 1.0)
        })
        .collect();
    let threshold = request.context.options.threshold.unwrap_or(card.threshold);
    let aggregation = request.context.options.aggregation;
    let reward = aggregation.apply(&tokens, threshold).unwrap_or(0.0);
    let span = ByteSpan::try_new(0, request.response.len() as u32).unwrap();
    Scored {
        flagged: Scored::flagged_spans(&tokens, threshold),
        tokens,
        sentences: vec![SentenceReward { span, reward }],
        reward,
        aggregation,
        version: card.version.clone(),
        batch_invariant: true,
        timing: Timing::default(),
        cache: CacheUse::default(),
        policy: None,
        duplicates_joined: 0,
    }
}

impl Scorer for Fake {
    fn score<'a>(
        &'a self,
        _: &'a Caller,
        request: ScoreRequest<Bytes>,
    ) -> BoxFuture<'a, Result<Scored, Failure>> {
        Box::pin(self.work(request))
    }

    fn open<'a>(
        &'a self,
        _: &'a Caller,
        _: Context<Bytes>,
    ) -> BoxFuture<'a, Result<OpenItem, Failure>> {
        let detail = "the fake opens nothing";
        let failure = Failure::new(ErrorClass::Unsupported, Reason::NOT_OFFERED, detail);
        Box::pin(std::future::ready(Err(failure)))
    }

    fn images(&self) -> &Arc<ImageStore> {
        &self.images
    }

    fn tokenize(&self, text: String) -> BoxFuture<'_, Result<Tokenized, Failure>> {
        assert!(text != "panic", "as the text says");
        let spans = (0..text.len() as u32).map(|n| ByteSpan::try_new(n, n + 1).unwrap()).collect();
        let encoded = Encoded { ids: text.bytes().map(u32::from).collect(), spans };
        let version = self.card.version.clone();
        Box::pin(std::future::ready(Ok(Tokenized { encoded, version })))
    }

    fn model_of<'a>(&'a self, adapter: &'a str) -> BoxFuture<'a, Result<Arc<ModelCard>, Failure>> {
        let card = Arc::clone(&self.card);
        let known = adapter.is_empty() || card.adapter.as_deref() == Some(adapter);
        let unknown = || {
            let detail = "no adapter of that name is loaded";
            Failure::new(ErrorClass::Unknown, Reason::ADAPTER_UNKNOWN, detail).at("adapter")
        };
        Box::pin(std::future::ready(known.then_some(card).ok_or_else(unknown)))
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let count = if self.finished { &self.fake.finished } else { &self.fake.dropped };
        count.fetch_add(1, Ordering::SeqCst);
    }
}
