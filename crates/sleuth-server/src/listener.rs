//! Connections: bounded in number, in time and in handshakes under way.

mod connection;
mod plain;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::PollSemaphore;

use self::connection::OPENING_BYTES;
pub(crate) use self::connection::{Connection, Patience, Peer, Timed};
use crate::reload::Latest;
use crate::{ConnectionSettings, ServeError};

/// How long to wait where the system gives no more sockets: others must close first.
const OUT_OF_SOCKETS: Duration = Duration::from_millis(100);

/// What is spoken on a listener's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// By gRPC.
    Http2,
    /// By the HTTP facades.
    Http1,
}

/// Connections that are ready to be spoken on. Who comes when all places are taken waits in the
/// system's backlog.
pub(crate) struct Incoming {
    listener: TcpListener,
    tls: Option<Latest<ServerConfig>>,
    settings: ConnectionSettings,
    protocol: Protocol,
    places: PollSemaphore,
    place: Option<OwnedSemaphorePermit>,
    full: bool,
    handshakes: JoinSet<Option<Connection>>,
    pause: Option<Pin<Box<Sleep>>>,
}

// === impl Protocol ===

impl Protocol {
    /// Bytes that must come in time before a connection may be silent; over HTTP/1 it is the
    /// reader of heads that keeps the time.
    const fn opening_bytes(self) -> usize {
        match self {
            Self::Http2 => OPENING_BYTES,
            Self::Http1 => 0,
        }
    }

    /// With this protocol alone.
    fn config(self, read: Arc<ServerConfig>) -> Arc<ServerConfig> {
        match self {
            Self::Http2 => read,
            Self::Http1 => {
                let mut config = (*read).clone();
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                Arc::new(config)
            }
        }
    }
}

// === impl Incoming ===

impl Incoming {
    pub(crate) fn new(
        listener: TcpListener,
        tls: Option<Latest<ServerConfig>>,
        settings: ConnectionSettings,
        protocol: Protocol,
    ) -> Self {
        let most = settings.max_connections.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            listener,
            tls,
            settings,
            protocol,
            places: PollSemaphore::new(Arc::new(Semaphore::new(most))),
            place: None,
            full: false,
            handshakes: JoinSet::new(),
            pause: None,
        }
    }

    /// Takes a connection; gives it back where nothing is left to agree on.
    fn take(
        &mut self,
        stream: TcpStream,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
    ) -> Option<Connection> {
        // Without it small replies wait up to 40 ms for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let patience = self.settings.handshake_timeout;
        let opening = Patience::Opening(self.protocol.opening_bytes());
        let Some(tls) = &self.tls else {
            return Some(Connection::plain(stream, address, (opening, patience), place));
        };
        let config = self.protocol.config(tls.get());
        self.handshakes.spawn(async move {
            match timeout(patience, secure(stream, config)).await {
                Ok(Ok(stream)) => {
                    Some(Connection::tls(stream, address, (opening, patience), place))
                }
                Ok(Err(error)) => {
                    tracing::info!(%address, %error, "a handshake failed");
                    None
                }
                Err(_) => {
                    tracing::info!(%address, "a handshake took too long");
                    None
                }
            }
        });
        None
    }

    fn poll_place(&mut self, cx: &mut Context<'_>) -> Poll<Option<OwnedSemaphorePermit>> {
        if let Some(place) = self.place.take() {
            return Poll::Ready(Some(place));
        }
        let polled = self.places.poll_acquire(cx);
        if polled.is_pending() && !self.full {
            tracing::warn!(connections = self.settings.max_connections, "no more are taken");
        }
        self.full = polled.is_pending();
        polled
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            while let Poll::Ready(Some(ended)) = this.handshakes.poll_join_next(cx) {
                if let Ok(Some(connection)) = ended {
                    return Poll::Ready(Some(Ok(connection)));
                }
            }
            if this.handshakes.len() >= this.settings.max_handshakes.max(1) {
                return Poll::Pending;
            }
            ready!(this.poll_pause(cx));
            let Some(place) = ready!(this.poll_place(cx)) else { return Poll::Ready(None) };
            match this.listener.poll_accept(cx) {
                Poll::Pending => {
                    this.place = Some(place);
                    return Poll::Pending;
                }
                Poll::Ready(Ok((stream, address))) => {
                    if let Some(connection) = this.take(stream, address, place) {
                        return Poll::Ready(Some(Ok(connection)));
                    }
                }
                Poll::Ready(Err(error)) => {
                    this.place = Some(place);
                    if !is_of_one_connection(&error) {
                        tracing::warn!(%error, "no connection can be taken for now");
                        this.pause = Some(Box::pin(sleep(OUT_OF_SOCKETS)));
                    }
                }
            }
        }
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("listener", &self.listener).finish_non_exhaustive()
    }
}

async fn secure(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    if let Some(plain) = plain::Plain::of(&stream).await? {
        plain.tell(&mut stream).await;
        return Err(io::Error::other("the client speaks without TLS"));
    }
    TlsAcceptor::from(config).accept(stream).await
}

/// Listens on an address; port 0 takes a free one, and the address that it got comes too.
pub(crate) async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let fail = |source| ServeError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    let local_addr = listener.local_addr().map_err(fail)?;
    Ok((listener, local_addr))
}

/// Errors that say nothing about the next connection.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
    )
}
