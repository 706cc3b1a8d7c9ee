use std::convert::Infallible;
use std::future::{Future, pending, ready};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::Stream;
use futures::future::{Either, select};
use rustls::ServerConfig;
use sleuth_proto::FILE_DESCRIPTOR_SET;
use sleuth_proto::v1::admin_service_server::AdminServiceServer;
use sleuth_proto::v1::replica_service_server::ReplicaServiceServer;
use sleuth_proto::v1::reward_service_server::RewardServiceServer;
use sleuth_service::{Scorer, Swap};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::admin::{Admin, Drains, ReplaceFilter};
use crate::arriving::Room;
use crate::auth::{AuthLayer, Credentials};
use crate::gate::Gate;
use crate::http::{Facades, HttpPort, OpenPort};
use crate::lifecycle::Lifecycle;
use crate::listener::{Incoming, Protocol, listen};
use crate::port::{Doing, Stage};
use crate::reload::{Latest, Reloader, Source};
use crate::replica::Replica;
use crate::reward::Reward;
use crate::scoring::Scoring;
use crate::{Drained, SecurityError, ServeError, ServerSettings, TlsSettings};

/// How long connections get to send what is left once every call has ended.
const FLUSH: Duration = Duration::from_secs(1);
/// HTTP/2 windows: an image fits a few of them, not hundreds.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Starts servers.
#[derive(Clone, Copy, Debug)]
pub struct Server;

/// A server that has its address, certificates and credentials, and takes connections once it
/// [runs](Self::run).
pub struct BoundServer {
    listener: TcpListener,
    local_addr: SocketAddr,
    http: Option<HttpPort>,
    settings: ServerSettings,
    secured: Secured,
    reloader: Reloader,
    hooks: Hooks,
}

/// Where a server reaches into its process.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Told what the server is doing.
    pub stage: Stage,
    /// For `SetLogFilter`, which is not offered without.
    pub replace_filter: Option<ReplaceFilter>,
    /// For what exchanges versions, which is not offered without; set once the model has loaded.
    pub swap: Arc<OnceLock<Swap>>,
}

/// Who is known, and where else than over gRPC they call.
struct Callers {
    known: Option<Latest<Credentials>>,
    http: Option<OpenPort>,
}

/// What is read from files, and read again when they change.
struct Secured {
    tls: Option<(Source<ServerConfig>, Latest<ServerConfig>)>,
    credentials: Option<(Source<Credentials>, Latest<Credentials>)>,
}

// === impl Server ===

impl Server {
    /// Reads certificates and credentials and listens on `settings.listen`; fails where one of
    /// them cannot be had.
    pub async fn bind(settings: ServerSettings) -> Result<BoundServer, ServeError> {
        let secured = Secured::open(&settings)?;
        let (listener, local_addr) = listen(settings.listen).await?;
        let http = match settings.http {
            Some(http) => Some(HttpPort::bind(http).await?),
            None => None,
        };
        let (reloader, hooks) = (Reloader::new(), Hooks::default());
        Ok(BoundServer { listener, local_addr, http, settings, secured, reloader, hooks })
    }

    /// What is wrong with the files that the settings name.
    pub fn check_files(settings: &ServerSettings) -> Vec<SecurityError> {
        let tls = settings.tls.as_ref().and_then(|tls| tls.read().err());
        let credentials = settings.credentials.as_ref();
        tls.into_iter().chain(credentials.and_then(|path| Credentials::read(path).err())).collect()
    }
}

// === impl BoundServer ===

impl BoundServer {
    /// Where it listens, with the port it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where the HTTP facades listen, if they do, with the port they got.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(HttpPort::local_addr)
    }

    /// With other hooks.
    #[must_use]
    pub fn with_hooks(self, hooks: Hooks) -> Self {
        Self { hooks, ..self }
    }

    /// Has certificates and credentials read again, also while it runs.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Takes connections at once, and items once `load` gives a scorer; then serves until
    /// `shutdown` resolves, and drains as [`serve`] says. A shutdown while loading drops `load`.
    pub async fn run<E>(
        self,
        load: impl Future<Output = Result<Arc<dyn Scorer>, E>> + Send,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<Drained, ServeError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Self { listener, local_addr, http, settings, secured, reloader, hooks } = self;
        let encrypted = secured.tls.is_some();
        tracing::info!(address = %local_addr, tls = encrypted, "listening");
        let tls = secured.tls.as_ref().map(|(_, latest)| latest.clone());
        let http = http.map(|port| port.open(tls.clone(), &settings));
        let incoming = Incoming::new(listener, tls, settings.connection, Protocol::Http2);
        let known = secured.credentials.as_ref().map(|(_, latest)| latest.clone());
        let load = async move { load.await.map_err(|error| ServeError::Load(error.into())) };
        let callers = Callers { known, http };
        let serving = serve_gated(incoming, load, &settings, hooks, callers, shutdown);
        tokio::select! {
            outcome = serving => outcome,
            never = secured.follow(settings.reload_interval, &reloader) => match never {},
        }
    }
}

// === impl Secured ===

impl Secured {
    fn open(settings: &ServerSettings) -> Result<Self, SecurityError> {
        let tls = settings.tls.as_ref().map(TlsSettings::open).transpose()?;
        let credentials = settings.credentials.clone().map(Credentials::open).transpose()?;
        Ok(Self { tls, credentials })
    }

    async fn follow(self, every: Duration, reloader: &Reloader) -> Infallible {
        let tls = follow(self.tls.map(|(source, _)| source), every, reloader);
        let credentials = follow(self.credentials.map(|(source, _)| source), every, reloader);
        tokio::join!(tls, credentials).0
    }
}

async fn follow<T: Send + Sync + 'static>(
    source: Option<Source<T>>,
    every: Duration,
    reloader: &Reloader,
) -> Infallible {
    match source {
        Some(source) => source.follow(every, reloader.asked()).await,
        None => pending().await,
    }
}

impl std::fmt::Debug for BoundServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundServer").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").field("stage", &self.stage).finish_non_exhaustive()
    }
}

/// Serves every service on `incoming`, to whoever comes, until it ends or `shutdown` resolves.
///
/// Then health says NOT_SERVING, for `settings.drain_lag` all goes on, then streams get a DRAINING
/// notice, new items are refused, and unfinished ones finish, up to `settings.drain_deadline`.
/// Connections that merely stay open, such as health watchers, do not hold the drain up.
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
    let callers = Callers { known: None, http: None };
    serve_gated(incoming, ready(Ok(scorer)), settings, Hooks::default(), callers, shutdown).await
}

async fn serve_gated<I, IO, E>(
    incoming: I,
    load: impl Future<Output = Result<Arc<dyn Scorer>, ServeError>> + Send,
    settings: &ServerSettings,
    hooks: Hooks,
    callers: Callers,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<Drained, ServeError>
where
    I: Stream<Item = Result<IO, E>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    IO::ConnectInfo: Clone + Send + Sync + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let lifecycle = Lifecycle::default();
    let (reporter, early) = early(&hooks, &lifecycle, settings).await?;
    let Callers { known, http } = callers;
    let largest_body = settings.http.map_or(0, |http| http.max_body_bytes);
    let bytes = settings.max_arriving_bytes.max(largest_body);
    let room = Room::new(bytes, settings.limits.max_message_bytes());
    let (facades, http_key) = Facades::new(settings, known.clone(), &lifecycle, room.clone());
    let (gate, key) = Gate::new(early.clone(), room);
    let closing = lifecycle.clone();
    let signal = async move { closing.closing().await };
    let transport = transport(settings).layer(AuthLayer::new(known));
    let grpc = transport.serve_with_incoming_shutdown(gate, incoming, signal);
    let mut serving = pin!(beside(grpc, http, facades));
    let mut shutdown = pin!(shutdown);

    tokio::select! {
        biased;
        scorer = load => {
            let scoring = Arc::new(Scoring::new(scorer?, settings, lifecycle.clone()));
            http_key.open(&scoring);
            key.open(with_scoring(early, scoring, &hooks.stage, settings));
            report(&reporter, ServingStatus::Serving).await;
            hooks.stage.set(Doing::Serving);
            tokio::select! {
                ended = &mut serving => {
                    return ended.map(|()| Drained::Complete).map_err(ServeError::Transport);
                }
                () = &mut shutdown => {}
            }
        }
        ended = &mut serving => {
            return ended.map(|()| Drained::Complete).map_err(ServeError::Transport);
        }
        () = &mut shutdown => {}
    }
    drain(serving, settings, &lifecycle, &reporter, &hooks.stage).await
}

/// Serves the facades for as long as gRPC is served, and to the end of what they took.
async fn beside(
    grpc: impl Future<Output = Result<(), tonic::transport::Error>>,
    http: Option<OpenPort>,
    facades: Facades,
) -> Result<(), tonic::transport::Error> {
    let Some(http) = http else { return grpc.await };
    match select(pin!(grpc), pin!(http.serve(facades))).await {
        Either::Left((ended, facades)) => {
            ended?;
            facades.await;
            Ok(())
        }
        Either::Right(((), grpc)) => grpc.await,
    }
}

/// Finishes what was taken, and ends.
async fn drain(
    mut serving: Pin<&mut impl Future<Output = Result<(), tonic::transport::Error>>>,
    settings: &ServerSettings,
    lifecycle: &Lifecycle,
    reporter: &HealthReporter,
    stage: &Stage,
) -> Result<Drained, ServeError> {
    let ended =
        |ended: Result<(), _>| ended.map(|()| Drained::Complete).map_err(ServeError::Transport);
    tracing::info!("draining");
    report(reporter, ServingStatus::NotServing).await;
    stage.set(Doing::Draining);
    // Whoever sends items here must see first that it is not ready any more.
    if let Ok(early) = timeout(settings.drain_lag, &mut serving).await {
        return ended(early);
    }
    lifecycle.drain();
    lifecycle.close();
    tracing::info!("new items are refused");
    let drained = timeout(settings.drain_deadline, async {
        tokio::select! {
            ended = &mut serving => Some(ended),
            () = lifecycle.idle() => None,
        }
    });
    let outcome = match drained.await {
        Ok(Some(early)) => return ended(early),
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

/// What is served from the start.
async fn early(
    hooks: &Hooks,
    lifecycle: &Lifecycle,
    settings: &ServerSettings,
) -> Result<(HealthReporter, Routes), ServeError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    report(&reporter, ServingStatus::NotServing).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(ServeError::Reflection)?;
    let drains = Drains {
        lifecycle: lifecycle.clone(),
        reporter: reporter.clone(),
        stage: hooks.stage.clone(),
        observer: settings.observer.clone(),
        deadline: settings.drain_deadline,
    };
    let admin = AdminServiceServer::new(Admin::new(hooks, drains));
    Ok((reporter, Routes::new(health).add_service(reflection).add_service(admin)))
}

/// What is served once the model is there.
fn with_scoring(
    early: Routes,
    scoring: Arc<Scoring>,
    stage: &Stage,
    settings: &ServerSettings,
) -> Routes {
    let message = settings.limits.max_message_bytes();
    let replica = Replica::new(Arc::clone(&scoring.scorer), stage.clone());
    let reward = RewardServiceServer::new(Reward::new(scoring)).max_decoding_message_size(message);
    early.add_service(reward).add_service(ReplicaServiceServer::new(replica)).prepare()
}

fn transport(settings: &ServerSettings) -> tonic::transport::Server {
    let connection = settings.connection;
    let builder = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(connection.max_concurrent_streams)
        .http2_max_header_list_size(connection.max_header_bytes)
        .http2_keepalive_interval(Some(connection.keepalive_interval))
        .http2_keepalive_timeout(Some(connection.keepalive_timeout));
    match connection.max_age {
        Some((age, grace)) => builder.max_connection_age(age).max_connection_age_grace(grace),
        None => builder,
    }
}

/// For the server as a whole and for the one service that scores.
pub(crate) async fn report(reporter: &HealthReporter, status: ServingStatus) {
    reporter.set_service_status("", status).await;
    reporter
        .set_service_status(
            <RewardServiceServer<Reward> as tonic::server::NamedService>::NAME,
            status,
        )
        .await;
}
