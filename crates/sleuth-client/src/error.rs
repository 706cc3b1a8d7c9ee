use sleuth_core::ErrorClass;
use sleuth_wire::{Refusal, Unreadable};

/// Why there is no reward, or no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server's address is no URL.
    #[error("the server's address is not a URL")]
    Url(#[source] tonic::transport::Error),
    /// The token cannot be sent in a header.
    #[error("the token is no header value")]
    Token,
    /// The tenant cannot be named in a header.
    #[error("the tenant is no header value")]
    Tenant,
    /// The server cannot be reached.
    #[error("cannot connect to the server")]
    Connect(#[source] tonic::transport::Error),
    /// The server answered with a reason instead of a reward.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The stream ended before the item's verdict; the item may have been scored.
    #[error("the stream ended before the verdict")]
    StreamEnded(#[source] Option<Refusal>),
    /// The server broke the contract.
    #[error("the server's answer cannot be read")]
    Unreadable(#[from] Unreadable),
}

// === impl ClientError ===

impl ClientError {
    /// Whether the same item may succeed later or elsewhere.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.retryable,
            // What the server does not know or permit it will not the next time either.
            Self::StreamEnded(Some(refusal)) => {
                !matches!(refusal.class, ErrorClass::Unauthenticated | ErrorClass::Denied)
            }
            Self::Connect(_) | Self::StreamEnded(None) => true,
            Self::Url(_) | Self::Token | Self::Tenant | Self::Unreadable(_) => false,
        }
    }
}

impl ClientError {
    /// When the server wants to be asked again.
    pub fn retry_after(&self) -> Option<std::time::Duration> {
        match self {
            Self::Refused(refusal) | Self::StreamEnded(Some(refusal)) => refusal.retry_after,
            Self::Connect(_)
            | Self::StreamEnded(None)
            | Self::Url(_)
            | Self::Token
            | Self::Tenant
            | Self::Unreadable(_) => None,
        }
    }
}

impl From<tonic::Status> for ClientError {
    fn from(status: tonic::Status) -> Self {
        Self::Refused(Refusal::from(&status))
    }
}
