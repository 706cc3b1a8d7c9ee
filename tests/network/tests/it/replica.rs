//! A replica that scores by a rule, on the simulated network: a token for each byte.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use bytes::Bytes;
use sleuth_core::{
    Aggregation, ByteSpan, CacheUse, Context, Encoded, Failure, Load, ModelCard, ScoreRequest,
    Scored, SentenceReward, Timing, TokenReward,
};
use sleuth_server::{ServerSettings, serve};
use sleuth_service::{
    Appended, BoxFuture, Caller, Hold, ImageStore, OpenEvent, OpenItem, Rewards, Scorer, Tokenized,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

pub(crate) const PORT: u16 = 50051;

/// How often each text was computed, by all replicas together.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    texts: Arc<Mutex<HashMap<String, usize>>>,
    failovers: Arc<AtomicU64>,
}

impl Ledger {
    pub(crate) fn computed(&self) -> usize {
        self.texts.lock().unwrap().values().sum()
    }

    pub(crate) fn most(&self) -> usize {
        self.texts.lock().unwrap().values().copied().max().unwrap_or(0)
    }

    /// Items that the router sent elsewhere.
    pub(crate) fn failovers(&self) -> u64 {
        self.failovers.load(Ordering::Relaxed)
    }

    pub(crate) fn note_failovers(&self, failovers: u64) {
        self.failovers.store(failovers, Ordering::Relaxed);
    }

    fn count(&self, text: &str) {
        *self.texts.lock().unwrap().entry(text.to_owned()).or_default() += 1;
    }
}

/// What every replica says of a text.
pub(crate) fn expected(text: &str, version: &str) -> Scored {
    let tokens: Vec<TokenReward> = text.bytes().enumerate().map(|(n, b)| token(n, b)).collect();
    let reward = Aggregation::MeanLog.apply(&tokens, 0.5).unwrap();
    let span = ByteSpan::try_new(0, text.len() as u32).unwrap();
    Scored {
        tokens,
        policy: None,
        sentences: vec![SentenceReward { span, reward }],
        flagged: Vec::new(),
        reward,
        aggregation: Aggregation::MeanLog,
        version: version.to_owned(),
        batch_invariant: true,
        timing: Timing::default(),
        cache: CacheUse::default(),
        duplicates_joined: 0,
    }
}

fn token(place: usize, byte: u8) -> TokenReward {
    let span = ByteSpan::try_new(place as u32, place as u32 + 1).unwrap();
    TokenReward::from_logit(span, f32::from(byte) / 32.0 - 2.0)
}

/// Serves until its host crashes.
pub(crate) async fn replica(ledger: Ledger) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let incoming = futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| Io(stream));
        Some((accepted, listener))
    });
    let scorer = Arc::new(ByRule {
        ledger,
        card: Arc::new(ModelCard {
            name: "rule".to_owned(),
            version: "v1".to_owned(),
            architecture: "Rule".to_owned(),
            adapter: None,
            prompt: "Describe.".to_owned(),
            threshold: 0.5,
            causal_suffix: true,
            max_prompt_tokens: 64,
            max_response_tokens: 512,
        }),
        images: Arc::new(ImageStore::new(1 << 20, 1 << 16)),
    });
    let settings = ServerSettings::default();
    serve(Box::pin(incoming), scorer, &settings, std::future::pending()).await?;
    Ok(())
}

#[derive(Clone)]
struct ByRule {
    ledger: Ledger,
    card: Arc<ModelCard>,
    images: Arc<ImageStore>,
}

impl Scorer for ByRule {
    fn score<'a>(
        &'a self,
        _: &'a Caller,
        request: ScoreRequest<Bytes>,
    ) -> BoxFuture<'a, Result<Scored, Failure>> {
        Box::pin(async move {
            sleep(Duration::from_millis(100)).await;
            self.ledger.count(&request.response);
            Ok(expected(&request.response, &self.card.version))
        })
    }

    fn open<'a>(
        &'a self,
        _: &'a Caller,
        _: Context<Bytes>,
    ) -> BoxFuture<'a, Result<OpenItem, Failure>> {
        let (text, changed) = watch::channel((Vec::new(), false));
        let (events, inbox) = mpsc::channel(256);
        tokio::spawn(generate(self.clone(), changed, events));
        Box::pin(std::future::ready(Ok(OpenItem::new(ByRuleOpen { text, inbox }))))
    }

    fn images(&self) -> &Arc<ImageStore> {
        &self.images
    }

    fn tokenize(&self, _: String) -> BoxFuture<'_, Result<Tokenized, Failure>> {
        let (encoded, version) = (Encoded::default(), self.card.version.clone());
        Box::pin(std::future::ready(Ok(Tokenized { encoded, version })))
    }

    fn model_of<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Arc<ModelCard>, Failure>> {
        Box::pin(std::future::ready(Ok(Arc::clone(&self.card))))
    }

    fn load(&self) -> Option<Load> {
        Some(Load {
            versions: vec![self.card.version.clone()],
            prefix_seconds: 0.01,
            response_token_seconds: 0.001,
            ..Load::default()
        })
    }
}

/// Tells the rewards of what was appended, and the verdict once it is whole.
async fn generate(
    scorer: ByRule,
    mut changed: watch::Receiver<(Vec<u8>, bool)>,
    events: mpsc::Sender<OpenEvent>,
) {
    let mut told = 0;
    loop {
        let (text, is_closed) = changed.borrow_and_update().clone();
        if told < text.len() {
            let tokens = (told..text.len()).map(|n| token(n, text[n])).collect();
            let scores = OpenEvent::Scores { first: told, rewards: Rewards::Model(tokens) };
            told = text.len();
            let _ = events.send(scores).await;
        }
        if is_closed {
            let text = String::from_utf8(text).unwrap();
            scorer.ledger.count(&text);
            let scored = expected(&text, &scorer.card.version);
            let _ = events.send(OpenEvent::Verdict(Ok(scored))).await;
            return;
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

struct ByRuleOpen {
    text: watch::Sender<(Vec<u8>, bool)>,
    inbox: mpsc::Receiver<OpenEvent>,
}

impl Hold for ByRuleOpen {
    fn append(&self, appended: Appended) -> BoxFuture<'_, ()> {
        self.text.send_modify(|(text, _)| {
            let known = text.len() - appended.offset as usize;
            text.extend_from_slice(appended.text.get(known..).unwrap_or_default());
        });
        Box::pin(std::future::ready(()))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.text.send_modify(|(_, is_closed)| *is_closed = true);
        Box::pin(std::future::ready(()))
    }

    fn cancel(self: Box<Self>) {}

    fn next(&mut self) -> BoxFuture<'_, OpenEvent> {
        Box::pin(async move {
            match self.inbox.recv().await {
                Some(event) => event,
                None => std::future::pending().await,
            }
        })
    }
}

/// A connection of the simulated network, as tonic takes one.
struct Io(TcpStream);

impl Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
