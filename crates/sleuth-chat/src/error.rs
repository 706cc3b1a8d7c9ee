use std::time::Duration;

/// Why a call gave no completion. Holds neither prompt, reply nor key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The endpoint cannot be reached, or the connection broke.
    #[error("no reply: {0}")]
    Connection(String),
    /// No whole reply in time.
    #[error("no whole reply within {0:?}")]
    Timeout(Duration),
    /// An HTTP status that is no success.
    #[error("the endpoint answered with status {status}{}", hint(*.status))]
    Status {
        /// The status.
        status: u16,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// The reply is longer than the limit.
    #[error("the reply is longer than {0} bytes")]
    TooLong(usize),
    /// The reply is no chat completion.
    #[error("the reply is no chat completion: {0}")]
    Malformed(&'static str),
    /// The client cannot be set up, as where the system has no certificates.
    #[error("cannot set up the client: {0}")]
    Setup(String),
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => ": check the key",
        404 => ": check the URL and the model's name",
        429 => ": too many requests; lower the rate",
        _ => "",
    }
}

// === impl ChatError ===

impl ChatError {
    /// Whether another attempt may do better.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Connection(_) | Self::Timeout(_) | Self::TooLong(_) | Self::Malformed(_) => true,
            Self::Status { status, .. } => matches!(status, 408 | 409 | 425 | 429 | 500..),
            Self::Setup(_) => false,
        }
    }

    pub(crate) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
