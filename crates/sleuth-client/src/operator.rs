use std::time::Duration;

use sleuth_proto::v1;
use sleuth_proto::v1::admin_service_client::AdminServiceClient;
use tonic::Request;

use crate::security::Transport;
use crate::{ClientError, ClientSettings, Security};

/// An operator's connection: exchanges versions and drains. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Operator {
    service: AdminServiceClient<Transport>,
}

/// An adapter that items can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedAdapter {
    /// The name.
    pub name: String,
    /// The version that answers for it.
    pub version: String,
    /// Bytes of memory charged to it.
    pub bytes: u64,
    /// Whether items that name no adapter use it.
    pub is_default: bool,
}

/// What came of loading weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedWeights {
    /// The version that answers from now on.
    pub version: String,
    /// The one before.
    pub previous: String,
}

// === impl Operator ===

impl Operator {
    /// Connects to a URL. Calls may take as long as a model takes to load.
    pub async fn connect(
        url: impl Into<String>,
        settings: &ClientSettings,
        security: &Security,
    ) -> Result<Self, ClientError> {
        let channel = security.connect(url, settings).await?;
        Ok(Self { service: AdminServiceClient::with_interceptor(channel, security.bearer()?) })
    }

    /// The adapters that items can name.
    pub async fn adapters(&self) -> Result<Vec<LoadedAdapter>, ClientError> {
        let reply = self.service.clone().list_adapters(v1::ListAdaptersRequest {}).await;
        let reply = reply?.into_inner();
        Ok(reply.adapters.into_iter().map(adapter).collect())
    }

    /// Loads a model folder, a path relative to the server's model root, and makes it the default;
    /// refused where its files have another version than `expected`, unless that is empty.
    /// The version before serves its unfinished groups on, at most `keep` long.
    pub async fn load_weights(
        &self,
        path: &str,
        expected: &str,
        keep: Option<Duration>,
    ) -> Result<LoadedWeights, ClientError> {
        let request = v1::LoadWeightsRequest {
            path: path.to_owned(),
            keep_old: keep.and_then(|keep| keep.try_into().ok()),
            expected_version: expected.to_owned(),
        };
        let reply = self.service.clone().load_weights(request).await;
        let reply = reply?.into_inner();
        Ok(LoadedWeights { version: reply.version, previous: reply.previous_version })
    }

    /// Loads an adapter folder, a path relative to the server's model root, under a name.
    pub async fn load_adapter(
        &self,
        name: &str,
        path: &str,
        expected: &str,
        make_default: bool,
    ) -> Result<LoadedAdapter, ClientError> {
        let (name, path) = (name.to_owned(), path.to_owned());
        let expected_version = expected.to_owned();
        let request = v1::LoadAdapterRequest { name, path, make_default, expected_version };
        let reply = self.service.clone().load_adapter(request).await;
        let reply = reply?.into_inner();
        reply.adapter.map(adapter).ok_or(ClientError::StreamEnded(None))
    }

    /// Offers an adapter no more.
    pub async fn unload_adapter(&self, name: &str) -> Result<(), ClientError> {
        let request = v1::UnloadAdapterRequest { name: name.to_owned() };
        let reply = self.service.clone().unload_adapter(request).await;
        reply?;
        Ok(())
    }

    /// Has new items refused and waits for the rest; how many were given up at the deadline.
    pub async fn drain(&self, deadline: Option<Duration>) -> Result<u32, ClientError> {
        let deadline = deadline.and_then(|deadline| deadline.try_into().ok());
        let request = Request::new(v1::DrainRequest { deadline });
        let reply = self.service.clone().drain(request).await;
        Ok(reply?.get_ref().abandoned_items)
    }
}

fn adapter(adapter: v1::Adapter) -> LoadedAdapter {
    let v1::Adapter { name, version, size_bytes, is_default } = adapter;
    LoadedAdapter { name, version, bytes: size_bytes, is_default }
}
