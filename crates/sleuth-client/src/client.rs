use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sleuth_core::{Encoded, ModelCard, ScoreRequest, Scored};
use sleuth_proto::v1;
use sleuth_proto::v1::reward_service_client::RewardServiceClient;
use sleuth_wire::{Assembly, Unreadable, encode_item, encoded, model_card};
use tokio::sync::{Mutex, Semaphore};
use tonic::transport::{Channel, Endpoint};

use crate::link::Link;
use crate::{ClientError, ClientSettings};

/// A connection to a server. Cheap to clone; clones share the connection and the stream.
#[derive(Clone)]
pub struct Client {
    service: RewardServiceClient<Channel>,
    shared: Arc<Shared>,
}

struct Shared {
    in_flight: Semaphore,
    max_in_flight: usize,
    link: Mutex<Option<Arc<Link>>>,
}

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
        let channel = Endpoint::from_shared(url.into())
            .map_err(ClientError::Url)?
            .connect_timeout(settings.connect_timeout)
            .http2_keep_alive_interval(settings.keepalive_interval)
            .keep_alive_timeout(settings.keepalive_timeout)
            .tcp_nodelay(true)
            .connect()
            .await
            .map_err(ClientError::Connect)?;
        Ok(Self::from_channel(channel, settings))
    }

    /// Uses a channel that is there already; only `max_in_flight` and `max_reply_bytes` apply.
    pub fn from_channel(channel: Channel, settings: ClientSettings) -> Self {
        let service =
            RewardServiceClient::new(channel).max_decoding_message_size(settings.max_reply_bytes);
        let max_in_flight = settings.max_in_flight.max(1);
        let shared = Shared {
            in_flight: Semaphore::new(max_in_flight),
            max_in_flight,
            link: Mutex::new(None),
        };
        Self { service, shared: Arc::new(shared) }
    }

    /// Scores one item over the shared stream. Dropping the future cancels the item.
    ///
    /// At most `max_in_flight` items are on their way; more wait here, in order.
    pub async fn score(&self, request: ScoreRequest<Bytes>) -> Result<Scored, ClientError> {
        let slot = self.shared.in_flight.acquire().await;
        let _slot = slot.map_err(|_| ClientError::StreamEnded(None))?;
        self.link().await.score(request).await
    }

    /// Scores a list in one call; results have its order, and a bad item spoils no other.
    ///
    /// Fails as a whole where the list is empty or too long, or the server takes nothing now.
    pub async fn score_batch(
        &self,
        requests: Vec<ScoreRequest<Bytes>>,
    ) -> Result<Vec<Result<Scored, ClientError>>, ClientError> {
        let expected = requests.len();
        let items = requests.into_iter().map(|request| encode_item(None, request)).collect();
        let mut service = self.service.clone();
        let reply = service.score_batch(v1::ScoreBatchRequest { items }).await?.into_inner();
        if reply.results.len() != expected {
            return Err(Unreadable::Missing("results").into());
        }
        Ok(reply.results.into_iter().map(item_result).collect())
    }

    /// Describes the loaded model.
    pub async fn model(&self) -> Result<ModelCard, ClientError> {
        let mut service = self.service.clone();
        let reply = service.get_model(v1::GetModelRequest::default()).await?;
        Ok(model_card(reply.into_inner()))
    }

    /// Tokenises a text as a response is tokenised.
    pub async fn tokenize(&self, text: impl Into<String>) -> Result<Encoded, ClientError> {
        let text = Bytes::from(text.into());
        let request = v1::TokenizeRequest { text, ..v1::TokenizeRequest::default() };
        let mut service = self.service.clone();
        let reply = service.tokenize(request).await?;
        Ok(encoded(reply.into_inner())?)
    }

    /// The shared stream, opened anew where the last one takes no more items.
    async fn link(&self) -> Arc<Link> {
        let mut link = self.shared.link.lock().await;
        match &*link {
            Some(open) if open.takes_items() => Arc::clone(open),
            _ => {
                let fresh = Link::open(self.service.clone(), self.shared.max_in_flight);
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

fn item_result(result: v1::ItemResult) -> Result<Scored, ClientError> {
    let mut assembly = Assembly::default();
    if let Some(scores) = &result.scores {
        assembly.push(scores)?;
    }
    let verdict = result.verdict.ok_or(Unreadable::Missing("verdict"))?;
    Ok(assembly.finish(verdict)??)
}
