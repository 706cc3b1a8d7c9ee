use std::time::Duration;

/// How a client connects and how much it has on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// Items without a verdict on the shared stream; more wait their turn here.
    pub max_in_flight: usize,
    /// The largest reply that is read, in bytes; a batch's reply holds all its tokens.
    pub max_reply_bytes: usize,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time between HTTP/2 pings while something is on its way.
    pub keepalive_interval: Duration,
    /// A connection whose ping is unanswered this long is closed.
    pub keepalive_timeout: Duration,
}

// === impl ClientSettings ===

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            max_in_flight: 256,
            max_reply_bytes: 64 << 20,
            connect_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}
