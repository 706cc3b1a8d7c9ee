use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use sleuth_proto::FILE_DESCRIPTOR_SET;
use sleuth_proto::v1::admin_service_server::AdminServiceServer;
use sleuth_proto::v1::replica_service_server::ReplicaServiceServer;
use sleuth_proto::v1::reward_service_server::RewardServiceServer;
use sleuth_service::Scorer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tonic::transport::server::{Connected, Router, TcpIncoming};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::lifecycle::Lifecycle;
use crate::reward::Reward;
use crate::scoring::Scoring;
use crate::unoffered::Unoffered;
use crate::{Drained, ServeError, ServerSettings};

/// How long connections get to send what is left once every call has ended.
const FLUSH: Duration = Duration::from_secs(1);
/// HTTP/2 windows: an image fits a few of them, not hundreds.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Starts servers.
#[derive(Clone, Copy, Debug)]
pub struct Server;

/// A server that has its address and takes connections once it [runs](Self::run).
pub struct BoundServer {
    listener: TcpListener,
    local_addr: SocketAddr,
    settings: ServerSettings,
    scorer: Arc<dyn Scorer>,
}

// === impl Server ===

impl Server {
    /// Listens on `settings.listen`; fails where that cannot be had.
    pub async fn bind(
        settings: ServerSettings,
        scorer: Arc<dyn Scorer>,
    ) -> Result<BoundServer, ServeError> {
        let address = settings.listen;
        let fail = |source| ServeError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let local_addr = listener.local_addr().map_err(fail)?;
        Ok(BoundServer { listener, local_addr, settings, scorer })
    }
}

// === impl BoundServer ===

impl BoundServer {
    /// Where it listens, with the port it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` resolves, then drains as [`serve`] says.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<Drained, ServeError> {
        tracing::info!(address = %self.local_addr, "listening");
        // Without it small replies wait up to 40 ms for an acknowledgement.
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        serve(incoming, self.scorer, &self.settings, shutdown).await
    }
}

impl std::fmt::Debug for BoundServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundServer").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// Serves every service on `incoming` until it ends or `shutdown` resolves.
///
/// Then health says NOT_SERVING, streams get a DRAINING notice, new items are refused, and
/// unfinished ones finish, up to `settings.drain_deadline`. Connections that merely stay open,
/// such as health watchers, do not hold the drain up.
pub async fn serve<I, IO, E>(
    incoming: I,
    scorer: Arc<dyn Scorer>,
    settings: &ServerSettings,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<Drained, ServeError>
where
    I: Stream<Item = Result<IO, E>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    IO::ConnectInfo: Clone + Send + Sync + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let lifecycle = Lifecycle::default();
    let scoring = Arc::new(Scoring::new(scorer, settings, lifecycle.clone()));
    let (reporter, router) = router(scoring, settings).await?;
    let draining = lifecycle.clone();
    let signal = async move { draining.draining().await };
    let mut serving = pin!(router.serve_with_incoming_shutdown(incoming, signal));

    tokio::select! {
        ended = &mut serving => {
            return ended.map(|()| Drained::Complete).map_err(ServeError::Transport);
        }
        () = shutdown => {}
    }
    tracing::info!("draining");
    report(&reporter, ServingStatus::NotServing).await;
    lifecycle.drain();
    let drained = timeout(settings.drain_deadline, async {
        tokio::select! {
            ended = &mut serving => Some(ended),
            () = lifecycle.idle() => None,
        }
    });
    let outcome = match drained.await {
        Ok(Some(ended)) => {
            return ended.map(|()| Drained::Complete).map_err(ServeError::Transport);
        }
        Ok(None) => Drained::Complete,
        Err(_) => {
            let calls = lifecycle.open_calls();
            tracing::warn!(calls, "the drain deadline passed");
            lifecycle.stop();
            Drained::CutOff { calls }
        }
    };
    // An idle peer may keep its connection for as long as it likes; it was told to go, and how
    // its connection ends no longer matters.
    let _ = timeout(FLUSH, serving).await;
    tracing::info!("stopped");
    Ok(outcome)
}

async fn router(
    scoring: Arc<Scoring>,
    settings: &ServerSettings,
) -> Result<(HealthReporter, Router), ServeError> {
    let message = settings.limits.max_message_bytes();
    let connection = settings.connection;
    let (reporter, health) = tonic_health::server::health_reporter();
    report(&reporter, ServingStatus::Serving).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(ServeError::Reflection)?;
    let mut builder = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(connection.max_concurrent_streams)
        .http2_keepalive_interval(Some(connection.keepalive_interval))
        .http2_keepalive_timeout(Some(connection.keepalive_timeout));
    if let Some((age, grace)) = connection.max_age {
        builder = builder.max_connection_age(age).max_connection_age_grace(grace);
    }
    let router = builder
        .add_service(health)
        .add_service(reflection)
        .add_service(
            RewardServiceServer::new(Reward::new(scoring)).max_decoding_message_size(message),
        )
        .add_service(ReplicaServiceServer::new(Unoffered))
        .add_service(AdminServiceServer::new(Unoffered));
    Ok((reporter, router))
}

/// For the server as a whole and for the one service that scores.
async fn report(reporter: &HealthReporter, status: ServingStatus) {
    reporter.set_service_status("", status).await;
    reporter
        .set_service_status(
            <RewardServiceServer<Reward> as tonic::server::NamedService>::NAME,
            status,
        )
        .await;
}
