//! The contracts of trainers and of vLLM's clients over HTTP/1.1, beside gRPC: `docs/http.md`.
//!
//! A request becomes items of the same [`Scoring`](crate::scoring::Scoring) that gRPC's become, so
//! that limits, admission, idempotency, traces and draining are the same, at a replica and at a
//! router. What a request says is parsed by functions without state, which never panic; an item that
//! has no reward is never a number.

mod body;
mod chat;
mod classify;
mod facades;
mod fields;
mod get_reward;
mod models;
mod picture;
mod pooling;
mod problem;
mod prompt;
mod route;
mod sample;
mod work;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::server::Connected as _;

pub(crate) use self::facades::Facades;
use crate::listener::{Connection, Incoming, Protocol, listen};
use crate::reload::Latest;
use crate::{ConnectionSettings, HttpSettings, ServeError, ServerSettings};

/// A head that has not arrived by then, or a connection that is silent so long between requests, is
/// ended.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// hyper takes no smaller buffer.
const LEAST_HEAD_BYTES: usize = 8192;

/// The facades' listener, which has its address.
#[derive(Debug)]
pub(crate) struct HttpPort {
    listener: TcpListener,
    local_addr: SocketAddr,
    settings: HttpSettings,
}

/// The facades' listener with what its connections are like.
pub(crate) struct OpenPort {
    incoming: Incoming,
    max_head_bytes: usize,
}

// === impl HttpPort ===

impl HttpPort {
    pub(crate) async fn bind(settings: HttpSettings) -> Result<Self, ServeError> {
        let (listener, local_addr) = listen(settings.listen).await?;
        Ok(Self { listener, local_addr, settings })
    }

    /// Where it listens, with the port it got.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    pub(crate) fn open(
        self,
        tls: Option<Latest<ServerConfig>>,
        settings: &ServerSettings,
    ) -> OpenPort {
        let address = self.local_addr;
        tracing::info!(%address, tls = tls.is_some(), "serving HTTP facades");
        let max_connections = self.settings.max_connections;
        let connection = ConnectionSettings { max_connections, ..settings.connection };
        let incoming = Incoming::new(self.listener, tls, connection, Protocol::Http1);
        let max_head_bytes = (connection.max_header_bytes as usize).max(LEAST_HEAD_BYTES);
        OpenPort { incoming, max_head_bytes }
    }
}

// === impl OpenPort ===

impl OpenPort {
    /// Serves until connections are to end, and then what was taken to its end.
    pub(crate) async fn serve(mut self, facades: Facades) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = facades.closing() => break,
                Some(_) = connections.join_next() => {}
                next = self.incoming.next() => match next {
                    Some(Ok(connection)) => {
                        let facades = facades.clone();
                        connections.spawn(converse(connection, facades, self.max_head_bytes));
                    }
                    Some(Err(_)) => {}
                    None => break,
                },
            }
        }
        drop(self.incoming);
        while connections.join_next().await.is_some() {}
    }
}

/// Answers one connection's requests, one after the other.
async fn converse(connection: Connection, facades: Facades, max_head_bytes: usize) {
    let peer = connection.connect_info();
    let address = peer.address;
    let closing = facades.clone();
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        let facades = facades.clone();
        request.extensions_mut().insert(peer.clone());
        async move { Ok::<_, Infallible>(facades.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(max_head_bytes)
        .serve_connection(TokioIo::new(connection), service);
    let mut served = pin!(served);
    let ended = tokio::select! {
        biased;
        ended = served.as_mut() => ended,
        () = closing.closing() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "a connection ended");
    }
}
