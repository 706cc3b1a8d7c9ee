use sleuth_client::{Client, ClientError, ClientSettings, Security};
use sleuth_service::BoxFuture;

/// How replicas are reached; another one stands in for the network in tests.
pub trait Dial: Send + Sync + 'static {
    /// A connection to a replica's URL.
    fn dial(&self, url: &str) -> BoxFuture<'_, Result<Client, ClientError>>;
}

/// Over TCP, with or without TLS.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) settings: ClientSettings,
    pub(crate) security: Security,
}

// === impl Network ===

impl Dial for Network {
    fn dial(&self, url: &str) -> BoxFuture<'_, Result<Client, ClientError>> {
        let url = url.to_owned();
        Box::pin(Client::connect_secured(url, self.settings, &self.security))
    }
}
