//! The admin port: probes for orchestrators over plain HTTP, and whatever pages are merged in.
//!
//! | path | 200 | 503 |
//! |---|---|---|
//! | `/livez` | whenever the process answers | never |
//! | `/startupz` | once the model has loaded | before |
//! | `/readyz` | while items are taken | while loading and while draining |

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::IntoResponse as _;
use axum::routing::get;
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;
use tower::ServiceExt as _;

use crate::ServeError;
use crate::listener::{Patience, Timed, listen};

/// Connections at once; more wait in the system's backlog.
const MAX_CONNECTIONS: usize = 128;
/// A connection that sends nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(75);
/// How long to wait where the system gives no socket.
const OUT_OF_SOCKETS: Duration = Duration::from_millis(100);

/// What a server is doing; read by probes. Clones share one state.
#[derive(Clone, Debug)]
pub struct Stage {
    sender: watch::Sender<Doing>,
}

/// What a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It listens, and its model is not there yet.
    Loading,
    /// It takes items.
    Serving,
    /// It finishes what it took.
    Draining,
}

/// Pages beside the probes, such as `/metrics`, which may come once the model has loaded. Clones
/// share them.
#[derive(Clone, Debug, Default)]
pub struct Pages(Arc<OnceLock<Router>>);

/// An admin port that has its address and answers once it [runs](Self::run).
#[derive(Debug)]
pub struct AdminPort {
    listener: TcpListener,
    local_addr: SocketAddr,
}

/// Connections of the admin port, bounded in number.
struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

/// A connection and its place.
struct Placed {
    io: Timed<TcpStream>,
    _place: OwnedSemaphorePermit,
}

// === impl Stage ===

impl Stage {
    /// What it is doing now.
    pub fn doing(&self) -> Doing {
        *self.sender.borrow()
    }

    /// Resolves when items are taken.
    pub async fn serving(&self) {
        let mut doing = self.sender.subscribe();
        // The sender lives as long as `self`.
        let _ = doing.wait_for(|doing| *doing == Doing::Serving).await;
    }

    pub(crate) fn set(&self, doing: Doing) {
        self.sender.send_replace(doing);
    }
}

impl Default for Stage {
    /// Loading.
    fn default() -> Self {
        Self { sender: watch::Sender::new(Doing::Loading) }
    }
}

// === impl Pages ===

impl Pages {
    /// Serves these too from now on. Only the first call counts.
    pub fn mount(&self, pages: Router) {
        let _ = self.0.set(pages);
    }

    fn service(self) -> Router {
        Router::new()
            .fallback(|State(pages): State<Self>, request: Request| async move {
                match pages.0.get() {
                    // A router answers everything, with 404 at worst.
                    Some(router) => router.clone().oneshot(request).await.into_response(),
                    None => StatusCode::NOT_FOUND.into_response(),
                }
            })
            .with_state(self)
    }
}

// === impl AdminPort ===

impl AdminPort {
    /// Listens on an address; port 0 takes a free one.
    pub async fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        let (listener, local_addr) = listen(address).await?;
        Ok(Self { listener, local_addr })
    }

    /// Where it listens, with the port it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers until it is dropped.
    pub async fn run(self, stage: Stage, pages: Pages) -> Result<(), ServeError> {
        let address = self.local_addr;
        tracing::info!(%address, "answering probes");
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let router = probes(stage).fallback_service(pages.service());
        let served = axum::serve(Bounded { listener: self.listener, places }, router);
        served.await.map_err(|source| ServeError::Bind { address, source })
    }
}

/// The probes alone.
fn probes(stage: Stage) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/startupz", get(startup))
        .route("/readyz", get(ready))
        .with_state(stage)
}

async fn startup(State(stage): State<Stage>) -> (StatusCode, &'static str) {
    match stage.doing() {
        Doing::Loading => (StatusCode::SERVICE_UNAVAILABLE, "loading\n"),
        Doing::Serving | Doing::Draining => (StatusCode::OK, "ok\n"),
    }
}

async fn ready(State(stage): State<Stage>) -> (StatusCode, &'static str) {
    match stage.doing() {
        Doing::Loading => (StatusCode::SERVICE_UNAVAILABLE, "loading\n"),
        Doing::Serving => (StatusCode::OK, "ok\n"),
        Doing::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

// === impl Bounded ===

impl axum::serve::Listener for Bounded {
    type Io = Placed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Placed, SocketAddr) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                // Nobody closes the semaphore.
                return std::future::pending().await;
            };
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let io = Timed::new(stream, Patience::Idle(IDLE), IDLE);
                    return (Placed { io, _place: place }, address);
                }
                Err(error) => {
                    tracing::debug!(%error, "no connection can be taken for now");
                    sleep(OUT_OF_SOCKETS).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

// === impl Placed ===

impl AsyncRead for Placed {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
