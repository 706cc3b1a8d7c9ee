//! A network between client and server that does badly on demand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// Forwards connections to one address.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<watch::Sender<Weather>>,
}

/// What happens to what travels.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    /// Connections made before this generation are cut.
    cut: u64,
    /// Connections made before this one pass nothing more, and stay open.
    frozen: u64,
    /// Bytes per second and direction; 0 for as many as come.
    rate: u64,
    /// Connections so far.
    connections: u64,
}

impl Proxy {
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(watch::Sender::new(Weather::default()));
        let own = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let mut number = 0;
                own.send_modify(|weather| {
                    number = weather.connections;
                    weather.connections += 1;
                });
                tokio::spawn(connection(near, to, number, own.subscribe()));
            }
        });
        Self { address, shared }
    }

    /// Closes every connection there is.
    pub(crate) fn cut(&self) {
        self.shared.send_modify(|weather| weather.cut = weather.connections);
    }

    /// Every connection there is goes silent in both directions without being closed.
    pub(crate) fn freeze(&self) {
        self.shared.send_modify(|weather| weather.frozen = weather.connections);
    }

    pub(crate) fn slow_down(&self, bytes_per_second: u64) {
        self.shared.send_modify(|weather| weather.rate = bytes_per_second);
    }
}

async fn connection(
    near: TcpStream,
    to: SocketAddr,
    number: u64,
    weather: watch::Receiver<Weather>,
) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    for side in [&near, &far] {
        side.set_nodelay(true).unwrap();
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let mut cut = weather.clone();
    tokio::select! {
        () = pass(near_in, far_out, number, weather.clone()) => {}
        () = pass(far_in, near_out, number, weather) => {}
        _ = cut.wait_for(|w| w.cut > number) => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    number: u64,
    weather: watch::Receiver<Weather>,
) {
    let mut buffer = vec![0; 4096];
    loop {
        let now = *weather.borrow();
        if now.frozen > number {
            // Until the connection is cut or the test ends.
            std::future::pending::<()>().await;
        }
        let Ok(n @ 1..) = from.read(&mut buffer).await else { return };
        if weather.borrow().frozen > number {
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
        if now.rate > 0 {
            sleep(Duration::from_secs_f64(n as f64 / now.rate as f64)).await;
        }
    }
}
