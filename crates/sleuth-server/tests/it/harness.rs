use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use sleuth_core::ScoreRequest;
use sleuth_proto::v1;
use sleuth_proto::v1::reward_service_client::RewardServiceClient;
use sleuth_proto::v1::score_tokens_request::Kind;
use sleuth_proto::v1::score_tokens_response::Kind as ReplyKind;
use sleuth_server::{Drained, ServeError, ServerSettings, StreamSettings, serve};
use sleuth_service::Scorer;
use sleuth_wire::{Limits, encode_item};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use tower::service_fn;

use crate::fake::Fake;

/// A running server, and a channel to it.
pub(crate) struct Harness {
    pub(crate) fake: Arc<Fake>,
    pub(crate) channel: Channel,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<Drained, ServeError>>,
}

/// A caller's two halves of a `ScoreTokens` stream.
pub(crate) struct Caller {
    pub(crate) requests: Option<mpsc::Sender<v1::ScoreTokensRequest>>,
    pub(crate) replies: Streaming<v1::ScoreTokensResponse>,
}

/// Small limits, so that tests reach them.
pub(crate) fn settings() -> ServerSettings {
    ServerSettings {
        limits: Limits {
            max_item_bytes: 64 << 10,
            max_prompt_bytes: 1 << 10,
            max_response_bytes: 32 << 10,
            max_batch_items: 8,
            max_timeout: Duration::from_mins(1),
        },
        stream: StreamSettings {
            max_unfinished_items: 8,
            max_open_items: 4,
            max_unread_replies: 4,
            tokens_per_message: 16,
            linger: Duration::from_millis(100),
        },
        drain_deadline: Duration::from_secs(5),
        ..ServerSettings::default()
    }
}

pub(crate) async fn start(settings: ServerSettings) -> Harness {
    let fake = Fake::new();
    let scorer = Arc::clone(&fake);
    serve_on(settings, fake, scorer).await
}

/// With a service of its own instead of the fake.
pub(crate) async fn start_with(settings: ServerSettings, scorer: Arc<dyn Scorer>) -> Harness {
    serve_on(settings, Fake::new(), scorer).await
}

async fn serve_on(settings: ServerSettings, fake: Arc<Fake>, scorer: Arc<dyn Scorer>) -> Harness {
    let (near, far) = tokio::io::duplex(64 << 10);
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(async move {
        let one = futures::stream::iter([Ok::<DuplexStream, io::Error>(far)]);
        let incoming = one.chain(futures::stream::pending());
        let shutdown = async move {
            // A harness that is dropped keeps its server until the test's runtime ends.
            if stopped.await.is_err() {
                futures::future::pending::<()>().await;
            }
        };
        serve(incoming, scorer, &settings, shutdown).await
    });
    let near = Mutex::new(Some(near));
    let connector = service_fn(move |_| {
        let io = near.lock().unwrap().take().map(TokioIo::new);
        async move { io.ok_or_else(|| io::Error::other("one connection per test")) }
    });
    let channel =
        Endpoint::from_static("http://test").connect_with_connector(connector).await.unwrap();
    Harness { fake, channel, stop: Some(stop), server }
}

impl Harness {
    pub(crate) fn service(&self) -> RewardServiceClient<Channel> {
        RewardServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn caller(&self) -> Caller {
        let (requests, queue) = mpsc::channel(64);
        let replies = self.service().score_tokens(ReceiverStream::new(queue)).await.unwrap();
        Caller { requests: Some(requests), replies: replies.into_inner() }
    }

    /// Tells the server to stop.
    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub(crate) async fn stopped(self) -> Drained {
        self.server.await.unwrap().unwrap()
    }

    /// Waits until a count of the fake is what it should become.
    pub(crate) async fn until(&self, what: impl Fn(&Fake) -> bool) {
        let wait = async {
            while !what(&self.fake) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("never became true");
    }
}

impl Caller {
    pub(crate) async fn send(&self, kind: Kind) {
        let request = v1::ScoreTokensRequest { kind: Some(kind) };
        self.requests.as_ref().unwrap().send(request).await.unwrap();
    }

    pub(crate) async fn score(&self, id: &str, response: &str) {
        self.send(Kind::Score(item(id, response))).await;
    }

    /// The next verdict, with the tokens that came before it.
    pub(crate) async fn verdict(&mut self) -> v1::Verdict {
        loop {
            match self.reply().await.unwrap().expect("the stream goes on") {
                ReplyKind::Verdict(verdict) => return verdict,
                ReplyKind::Scores(_) => {}
                ReplyKind::Notice(notice) => panic!("a notice: {notice:?}"),
            }
        }
    }

    pub(crate) async fn reply(&mut self) -> Result<Option<ReplyKind>, Status> {
        Ok(self.replies.message().await?.map(|reply| reply.kind.expect("a kind")))
    }

    /// Closes the caller's half.
    pub(crate) fn close(&mut self) {
        self.requests = None;
    }

    /// The verdicts that are left, until the stream ends.
    pub(crate) async fn rest(&mut self) -> Vec<v1::Verdict> {
        self.close();
        let mut verdicts = Vec::new();
        while let Some(kind) = self.reply().await.unwrap() {
            if let ReplyKind::Verdict(verdict) = kind {
                verdicts.push(verdict);
            }
        }
        verdicts
    }
}

pub(crate) fn request(response: &str) -> ScoreRequest<Bytes> {
    ScoreRequest::new(Bytes::from_static(b"an image"), response)
}

pub(crate) fn wire_key(id: &str) -> v1::Key {
    v1::Key { item_id: id.to_owned(), attempt: 1 }
}

pub(crate) fn item(id: &str, response: &str) -> v1::Item {
    encode_item(Some(wire_key(id)), request(response))
}

pub(crate) fn id(verdict: &v1::Verdict) -> &str {
    verdict.key.as_ref().map_or("", |k| k.item_id.as_str())
}

pub(crate) fn invalid(verdict: v1::Verdict) -> v1::Invalid {
    match verdict.outcome {
        Some(v1::verdict::Outcome::Invalid(invalid)) => invalid,
        other => panic!("not invalid: {other:?}"),
    }
}

pub(crate) fn valid(verdict: v1::Verdict) -> v1::Valid {
    match verdict.outcome {
        Some(v1::verdict::Outcome::Valid(valid)) => valid,
        other => panic!("not valid: {other:?}"),
    }
}
