use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use sleuth_wire::Limits;

use crate::Observer;
use crate::TlsSettings;

/// How a server listens, what it takes, and how it stops.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Where to listen; port 0 takes a free one. Loopback unless said otherwise.
    pub listen: SocketAddr,
    /// Certificates; plain where there are none.
    pub tls: Option<TlsSettings>,
    /// The file of callers that are known, as TOML: `docs/security.md` has its form. `None`: who
    /// can connect may call.
    pub credentials: Option<PathBuf>,
    /// How often certificates and credentials are looked at for changes.
    pub reload_interval: Duration,
    /// What an item, a message and a batch may be.
    pub limits: Limits,
    /// Bytes of unfinished items over all calls; more are refused as `overload`. Raised to the
    /// largest item where it is less.
    pub max_unfinished_bytes: usize,
    /// Bytes of messages that are still arriving, over all calls; with so many the server reads no
    /// more. Raised to the largest message where it is less.
    pub max_arriving_bytes: usize,
    /// The header that names a call's tenant. Only for a listener that none but an authenticating
    /// proxy reaches, as whoever sets it is believed. Not looked at where a call's credentials
    /// name its tenant. `None`: all calls are one tenant's.
    pub tenant_header: Option<String>,
    /// Per stream.
    pub stream: StreamSettings,
    /// Per connection.
    pub connection: ConnectionSettings,
    /// Where trainers' HTTP contracts are served beside gRPC; `None`: nowhere.
    pub http: Option<HttpSettings>,
    /// How long items are still taken after health says NOT_SERVING, so that balancers notice.
    pub drain_lag: Duration,
    /// What is unfinished this long after that is cut off.
    pub drain_deadline: Duration,
    /// Counts items and traces them.
    pub observer: Observer,
}

/// How one `ScoreTokens` stream is paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    /// Whole items without a verdict; with so many the server reads one more and then waits.
    pub max_unfinished_items: u32,
    /// Open items without a verdict; more are refused, since waiting would hold up their appends.
    pub max_open_items: usize,
    /// Replies that wait to be read; with so many, items wait with theirs.
    pub max_unread_replies: usize,
    /// Tokens in one `Scores` message.
    pub tokens_per_message: usize,
    /// How long a drained stream stays open at least, so that what is on its way gets verdicts.
    pub linger: Duration,
}

/// Connections, and HTTP/2 on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Connections at once; more wait in the system's backlog.
    pub max_connections: usize,
    /// TLS handshakes under way at once; more wait there too.
    pub max_handshakes: usize,
    /// Time for a TLS handshake, and for the first bytes of HTTP/2 after it.
    pub handshake_timeout: Duration,
    /// Calls at once on one connection.
    pub max_concurrent_streams: u32,
    /// Bytes of a call's headers.
    pub max_header_bytes: u32,
    /// Time between pings.
    pub keepalive_interval: Duration,
    /// A connection whose ping is unanswered this long is closed.
    pub keepalive_timeout: Duration,
    /// Asks clients to connect anew after the first time, and ends their calls after the second
    /// on top. `None` keeps connections, since streams may live as long as a training run.
    pub max_age: Option<(Duration, Duration)>,
}

/// The listener of the HTTP facades. Certificates, credentials and all other limits are those of
/// gRPC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Connections at once; more wait in the system's backlog.
    pub max_connections: usize,
    /// Bytes of a request's body.
    pub max_body_bytes: usize,
    /// Responses to score in one request.
    pub max_samples: usize,
}

// === impl ServerSettings ===

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50051)),
            tls: None,
            credentials: None,
            reload_interval: Duration::from_secs(5),
            limits: Limits::default(),
            max_unfinished_bytes: 1 << 30,
            max_arriving_bytes: 1 << 30,
            tenant_header: None,
            stream: StreamSettings::default(),
            connection: ConnectionSettings::default(),
            http: None,
            drain_lag: Duration::ZERO,
            drain_deadline: Duration::from_secs(30),
            observer: Observer::default(),
        }
    }
}

// === impl HttpSettings ===

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50053)),
            max_connections: 1024,
            max_body_bytes: 64 << 20,
            max_samples: 4096,
        }
    }
}

// === impl StreamSettings ===

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            max_unfinished_items: 512,
            max_open_items: 1024,
            max_unread_replies: 64,
            tokens_per_message: 1024,
            linger: Duration::from_millis(500),
        }
    }
}

// === impl ConnectionSettings ===

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_handshakes: 64,
            handshake_timeout: Duration::from_secs(10),
            max_concurrent_streams: 256,
            max_header_bytes: 16 << 10,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(20),
            max_age: None,
        }
    }
}
