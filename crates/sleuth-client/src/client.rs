use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sleuth_core::{Context, Encoded, ImageSource, ModelCard, ScoreRequest, Scored};
use sleuth_proto::v1;
use sleuth_proto::v1::put_image_request::Kind as PutKind;
use sleuth_proto::v1::replica_service_client::ReplicaServiceClient;
use sleuth_proto::v1::reward_service_client::RewardServiceClient;
use sleuth_wire::{Assembly, Trace, Unreadable, encode_item, encoded, model_card};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use crate::images::KeptImages;
use crate::link::Link;
use crate::load::Loads;
use crate::open::{OpenItem, is_image_unknown};
use crate::security::{Bearer, Transport};
use crate::{ClientError, ClientSettings, Security};

/// A connection to a server. Cheap to clone; clones share the connection and the stream.
#[derive(Clone)]
pub struct Client {
    service: RewardServiceClient<Transport>,
    replica: ReplicaServiceClient<Transport>,
    channel: Channel,
    bearer: Bearer,
    shared: Arc<Shared>,
}

struct Shared {
    settings: ClientSettings,
    in_flight: Semaphore,
    link: Mutex<Option<Arc<Link>>>,
    images: std::sync::Mutex<KeptImages>,
    /// Of idempotency keys: random by client, counted within it.
    random: RandomState,
    keys: AtomicU64,
}

/// Bytes of one message of an image that is put.
const CHUNK_BYTES: usize = 1 << 20;

// === impl Client ===

impl Client {
    /// Connects to a URL such as `http://127.0.0.1:50051`, with the default settings.
    pub async fn connect(url: impl Into<String>) -> Result<Self, ClientError> {
        Self::connect_with(url, ClientSettings::default()).await
    }

    /// Connects to a URL.
    pub async fn connect_with(
        url: impl Into<String>,
        settings: ClientSettings,
    ) -> Result<Self, ClientError> {
        Self::connect_secured(url, settings, &Security::default()).await
    }

    /// Connects to a URL such as `https://rewards.internal:50051`, with what it takes to be sure
    /// of the server and to be known by it.
    pub async fn connect_secured(
        url: impl Into<String>,
        settings: ClientSettings,
        security: &Security,
    ) -> Result<Self, ClientError> {
        let channel = security.connect(url, &settings).await?;
        Ok(Self::over(channel, security.bearer()?, settings))
    }

    /// Uses a channel that is there already; what is about connecting does not apply.
    pub fn from_channel(channel: Channel, settings: ClientSettings) -> Self {
        Self::over(channel, Bearer::default(), settings)
    }

    /// A client over the same connection that calls on behalf of a tenant, with a stream of its
    /// own; the server must trust this one's credentials to name tenants.
    pub fn for_tenant(&self, tenant: &str) -> Result<Self, ClientError> {
        let bearer = self.bearer.of_tenant(tenant)?;
        Ok(Self::over(self.channel.clone(), bearer, self.shared.settings))
    }

    fn over(channel: Channel, bearer: Bearer, settings: ClientSettings) -> Self {
        let replica = ReplicaServiceClient::with_interceptor(channel.clone(), bearer.clone());
        let service = RewardServiceClient::with_interceptor(channel.clone(), bearer.clone())
            .max_decoding_message_size(settings.max_reply_bytes);
        let shared = Shared {
            in_flight: Semaphore::new(settings.max_in_flight.max(1)),
            link: Mutex::new(None),
            images: std::sync::Mutex::new(KeptImages::new(settings.kept_image_bytes)),
            random: RandomState::new(),
            keys: AtomicU64::new(0),
            settings,
        };
        Self { service, replica, channel, bearer, shared: Arc::new(shared) }
    }

    /// Scores one item over the shared stream. Dropping the future cancels the item.
    ///
    /// At most `max_in_flight` items are on their way; more wait here, in order. What may succeed
    /// later is tried again as the settings say, under the item's idempotency key, or one of its
    /// own: a server that has scored it does not score it twice.
    pub async fn score(&self, mut request: ScoreRequest<Bytes>) -> Result<Scored, ClientError> {
        let slot = self.shared.in_flight.acquire().await;
        let _slot = slot.map_err(|_| ClientError::StreamEnded(None))?;
        let began = Instant::now();
        let timeout = request.context.timeout;
        self.name(&mut request.context);
        let mut attempt = 1;
        loop {
            request.context.timeout = timeout.map(|t| t.saturating_sub(began.elapsed()));
            let error = match self.try_score(request.clone()).await {
                Ok(scored) => return Ok(scored),
                Err(error) => error,
            };
            let spent = timeout.is_some_and(|timeout| timeout <= began.elapsed());
            if spent || self.before_retry(&error, attempt, &request.context).await.is_none() {
                return Err(error);
            }
            attempt += 1;
        }
    }

    pub(crate) fn service(&self) -> RewardServiceClient<Transport> {
        self.service.clone()
    }

    async fn try_score(&self, request: ScoreRequest<Bytes>) -> Result<Scored, ClientError> {
        self.score_once(request, None).await
    }

    /// One attempt at an item, as it is: nothing is named, tried again or waited for here. For
    /// whoever decides that himself, such as a router. `trace` goes with the item.
    pub async fn score_once(
        &self,
        request: ScoreRequest<Bytes>,
        trace: Option<&Trace>,
    ) -> Result<Scored, ClientError> {
        self.link().await.score(request, trace).await?.verdict().await
    }

    /// Opens an item as [`Client::score_once`] scores one: where it fails, it has failed.
    pub async fn open_once(
        &self,
        context: Context<Bytes>,
        of_policy: bool,
        trace: Option<Trace>,
    ) -> Result<OpenItem, ClientError> {
        OpenItem::open_once(self.clone(), context, of_policy, trace).await
    }

    /// Opens an item whose response is still being generated. `of_policy` says that appends come
    /// with policy tokens, and that rewards are wanted for those.
    pub async fn open(
        &self,
        mut context: Context<Bytes>,
        of_policy: bool,
    ) -> Result<OpenItem, ClientError> {
        self.name(&mut context);
        OpenItem::open(self.clone(), context, of_policy).await
    }

    /// Scores a list in one call; results have its order, and a bad item spoils no other.
    ///
    /// Fails as a whole where the list is empty or too long, or the server takes nothing now.
    /// Nothing is tried again.
    pub async fn score_batch(
        &self,
        requests: Vec<ScoreRequest<Bytes>>,
    ) -> Result<Vec<Result<Scored, ClientError>>, ClientError> {
        let of_policy: Vec<bool> = requests.iter().map(|r| r.policy.is_some()).collect();
        let items = requests.into_iter().map(|request| encode_item(None, request)).collect();
        let mut service = self.service.clone();
        let reply = service.score_batch(v1::ScoreBatchRequest { items }).await?.into_inner();
        if reply.results.len() != of_policy.len() {
            return Err(Unreadable::Missing("results").into());
        }
        Ok(reply.results.into_iter().zip(of_policy).map(|(r, p)| item_result(r, p)).collect())
    }

    /// Puts an image, unless the server holds it; items may then name it by the digest that this
    /// gives. Should the server lose it, [`Client::score`] puts it again.
    pub async fn put_image(&self, data: Bytes) -> Result<[u8; 32], ClientError> {
        let digest = *blake3::hash(&data).as_bytes();
        self.send_image(digest, data.clone()).await?;
        crate::link::lock(&self.shared.images).keep(digest, data);
        Ok(digest)
    }

    /// Which images the server holds now: a hint.
    pub async fn has_images(&self, digests: &[[u8; 32]]) -> Result<Vec<bool>, ClientError> {
        let blake3 = digests.iter().map(|digest| Bytes::copy_from_slice(digest)).collect();
        let mut service = self.service.clone();
        let reply = service.has_images(v1::HasImagesRequest { blake3 }).await?.into_inner();
        if reply.present.len() != digests.len() {
            return Err(Unreadable::Missing("present").into());
        }
        Ok(reply.present)
    }

    /// Describes the loaded model.
    pub async fn model(&self) -> Result<ModelCard, ClientError> {
        self.model_of("").await
    }

    /// Describes the version that answers for an adapter; an empty name is the default.
    pub async fn model_of(&self, adapter: &str) -> Result<ModelCard, ClientError> {
        let mut service = self.service.clone();
        let request = v1::GetModelRequest { adapter: adapter.to_owned() };
        Ok(model_card(service.get_model(request).await?.into_inner()))
    }

    /// The server's load, now and as it changes: a report after at least `least`, at the latest
    /// after `most`; 10 ms to 10 s each.
    pub async fn watch_load(&self, least: Duration, most: Duration) -> Result<Loads, ClientError> {
        Loads::watch(self.replica.clone(), least, most).await
    }

    /// Tokenises a text as a response is tokenised.
    pub async fn tokenize(&self, text: impl Into<String>) -> Result<Encoded, ClientError> {
        let text = Bytes::from(text.into());
        let request = v1::TokenizeRequest { text, ..v1::TokenizeRequest::default() };
        let mut service = self.service.clone();
        let reply = service.tokenize(request).await?;
        Ok(encoded(reply.into_inner())?)
    }

    /// Waits until an item may be tried again, and does what must be done before; `None` where
    /// trying again does not help.
    pub(crate) async fn before_retry(
        &self,
        error: &ClientError,
        attempt: u32,
        context: &Context<Bytes>,
    ) -> Option<()> {
        if !error.is_retryable() {
            return None;
        }
        let jitter = (self.shared.random.hash_one(attempt) % 1000) as f64 / 1000.0;
        let pause = self.shared.settings.retry.pause(attempt, error.retry_after(), jitter)?;
        if let (ClientError::Refused(refusal), ImageSource::Digest(digest)) =
            (error, &context.image)
            && is_image_unknown(refusal)
        {
            let data = crate::link::lock(&self.shared.images).get(digest)?;
            return self.send_image(*digest, data).await.ok();
        }
        sleep(pause).await;
        Some(())
    }

    async fn send_image(&self, digest: [u8; 32], data: Bytes) -> Result<(), ClientError> {
        let header = v1::ImageHeader {
            blake3: Bytes::copy_from_slice(&digest),
            size_bytes: data.len() as u64,
        };
        let chunks = (0..data.len())
            .step_by(CHUNK_BYTES)
            .map(|at| PutKind::Chunk(data.slice(at..data.len().min(at + CHUNK_BYTES))));
        let kinds: Vec<PutKind> = std::iter::once(PutKind::Header(header)).chain(chunks).collect();
        let messages = kinds.into_iter().map(|kind| v1::PutImageRequest { kind: Some(kind) });
        let mut service = self.service.clone();
        service.put_image(tokio_stream::iter(messages)).await?;
        Ok(())
    }

    /// Gives an item an idempotency key of its own, if it has none and may be tried again.
    fn name(&self, context: &mut Context<Bytes>) {
        if self.shared.settings.retry.attempts > 1 && context.idempotency_key.is_none() {
            let n = self.shared.keys.fetch_add(1, Ordering::Relaxed);
            let [a, b] = ["a", "b"].map(|part| self.shared.random.hash_one((part, n)));
            context.idempotency_key = Some(format!("{a:016x}{b:016x}{n:x}"));
        }
    }

    /// Ends the shared stream as a lost connection would, for tests of what happens then.
    #[cfg(feature = "test-util")]
    pub async fn cut(&self) {
        if let Some(link) = &*self.shared.link.lock().await {
            link.cut();
        }
    }

    /// The shared stream, opened anew where the last one takes no more items.
    pub(crate) async fn link(&self) -> Arc<Link> {
        let mut link = self.shared.link.lock().await;
        match &*link {
            Some(open) if open.takes_items() => Arc::clone(open),
            _ => {
                let queue = self.shared.settings.max_in_flight.max(1);
                let fresh = Link::open(self.service.clone(), queue);
                *link = Some(Arc::clone(&fresh));
                fresh
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

fn item_result(result: v1::ItemResult, of_policy: bool) -> Result<Scored, ClientError> {
    let mut assembly = Assembly::new(of_policy);
    if let Some(scores) = &result.scores {
        assembly.push(scores)?;
    }
    let verdict = result.verdict.ok_or(Unreadable::Missing("verdict"))?;
    Ok(assembly.finish(verdict)??)
}
