//! A server on loopback TCP, as `Server::bind` makes it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sleuth_server::{Drained, Hooks, Reloader, ServeError, Server, ServerSettings, Stage};
use sleuth_service::Scorer;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::certificates::Leaf;
use crate::fake::Fake;
use crate::harness;

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) fake: Arc<Fake>,
    pub(crate) stage: Stage,
    pub(crate) reloader: Reloader,
    stop: Option<oneshot::Sender<()>>,
    load: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<Drained, ServeError>>,
}

/// Small limits and a free port.
pub(crate) fn settings() -> ServerSettings {
    ServerSettings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        reload_interval: Duration::from_millis(20),
        ..harness::settings()
    }
}

/// A server that has loaded.
pub(crate) async fn start(settings: ServerSettings) -> Running {
    let mut running = start_loading(settings, Hooks::default()).await;
    running.load();
    running.stage.serving().await;
    running
}

/// A server that loads until it is told that it has.
pub(crate) async fn start_loading(settings: ServerSettings, hooks: Hooks) -> Running {
    let server = Server::bind(settings).await.unwrap();
    let (address, reloader, fake) = (server.local_addr(), server.reloader(), Fake::new());
    let stage = hooks.stage.clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let (load, loaded) = oneshot::channel::<()>();
    let scorer: Arc<dyn Scorer> = Arc::<Fake>::clone(&fake);
    let load_model = async move { loaded.await.map(|()| scorer) };
    let shutdown = async move {
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let server = tokio::spawn(server.with_hooks(hooks).run(load_model, shutdown));
    Running { address, fake, stage, reloader, stop: Some(stop), load: Some(load), server }
}

impl Running {
    pub(crate) fn load(&mut self) {
        self.load.take().unwrap().send(()).unwrap();
    }

    /// Whatever loads fails.
    pub(crate) fn fail_to_load(&mut self) {
        self.load = None;
    }

    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub(crate) async fn ended(self) -> Result<Drained, ServeError> {
        self.server.await.unwrap()
    }

    pub(crate) async fn plain(&self) -> Channel {
        let url = format!("http://{}", self.address);
        Endpoint::from_shared(url).unwrap().connect().await.unwrap()
    }

    /// Connects by TLS, trusting an authority, with a certificate of one's own or none.
    pub(crate) async fn tls(
        &self,
        authority: &str,
        own: Option<&Leaf>,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(authority))
            .domain_name("localhost");
        if let Some(leaf) = own {
            tls = tls.identity(Identity::from_pem(&leaf.certificate, &leaf.key));
        }
        let url = format!("https://{}", self.address);
        Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap().connect().await
    }
}
