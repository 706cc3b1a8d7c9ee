use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::tls;

/// A connection that holds a place until it is dropped.
pub(crate) struct Connection {
    io: Io,
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

/// Who is at the other end of a call's connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Names in a client certificate that was verified.
    pub(crate) names: Option<Arc<[String]>>,
}

enum Io {
    Plain(Timed<TcpStream>),
    Tls(Box<Timed<TlsStream<TcpStream>>>),
}

/// Bytes that must come in time, or the connection ends.
pub(crate) struct Timed<IO> {
    io: IO,
    deadline: Pin<Box<Sleep>>,
    patience: Patience,
}

/// What must come in time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// So many bytes more; whatever comes after has all the time.
    Opening(usize),
    /// Something, again and again, so long after the last.
    Idle(Duration),
}

/// What HTTP/2 begins with, and an empty SETTINGS frame.
pub(super) const OPENING_BYTES: usize = 24 + 9;

// === impl Connection ===

impl Connection {
    pub(super) fn plain(
        stream: TcpStream,
        address: SocketAddr,
        (patience, first): (Patience, Duration),
        place: OwnedSemaphorePermit,
    ) -> Self {
        let io = Io::Plain(Timed::new(stream, patience, first));
        Self { io, peer: Peer { address, names: None }, _place: place }
    }

    pub(super) fn tls(
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
        (patience, first): (Patience, Duration),
        place: OwnedSemaphorePermit,
    ) -> Self {
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let names = shown.map(|certificate| tls::names(certificate).into());
        let timed = Timed::new(stream, patience, first);
        Self { io: Io::Tls(Box::new(timed)), peer: Peer { address, names }, _place: place }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Io::Tls(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(cx, parts),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

// === impl Timed ===

impl<IO> Timed<IO> {
    pub(crate) fn new(io: IO, patience: Patience, first: Duration) -> Self {
        Self { io, deadline: Box::pin(sleep(first)), patience }
    }

    fn came(&mut self, bytes: usize) {
        match &mut self.patience {
            Patience::Opening(left) => *left = left.saturating_sub(bytes),
            Patience::Idle(longest) => {
                let next = Instant::now() + *longest;
                self.deadline.as_mut().reset(next);
            }
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Timed<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buffer);
        if polled.is_ready() {
            this.came(buffer.filled().len() - before);
            return polled;
        }
        let waits = !matches!(this.patience, Patience::Opening(0));
        if waits && this.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Timed<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_opening_must_come_whole_and_in_time() {
        let (near, mut far) = tokio::io::duplex(64);
        let second = Duration::from_secs(1);
        let mut timed = Timed::new(near, Patience::Opening(4), second);
        far.write_all(b"ab").await.unwrap();
        let mut buffer = [0; 8];
        assert_eq!(timed.read(&mut buffer).await.unwrap(), 2);
        let error = timed.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let (near, mut far) = tokio::io::duplex(64);
        let mut timed = Timed::new(near, Patience::Opening(4), second);
        far.write_all(b"abcd").await.unwrap();
        assert_eq!(timed.read(&mut buffer).await.unwrap(), 4);
        let later = timeout(1000 * second, timed.read(&mut buffer)).await;
        assert!(later.is_err(), "it may be silent from now on");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends() {
        let (near, mut far) = tokio::io::duplex(64);
        let second = Duration::from_secs(1);
        let mut timed = Timed::new(near, Patience::Idle(second), second);
        let mut buffer = [0; 8];
        for _ in 0..5 {
            sleep(second * 3 / 4).await;
            far.write_all(b"x").await.unwrap();
            assert_eq!(timed.read(&mut buffer).await.unwrap(), 1);
        }
        let error = timed.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
