//! What a replica's outcome says of the replica, and whether the item should be tried elsewhere.

use sleuth_client::ClientError;
use sleuth_core::{ErrorClass, Reason};

use crate::health::Outcome;

/// What becomes of an item whose attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The caller is told.
    Tell,
    /// It goes elsewhere, on the retry budget; the name is for metrics.
    Elsewhere(Cause),
    /// The replica lacks the image: it is sent there, and the item again.
    SendImage,
    /// The version that the router had chosen is gone.
    OtherVersion,
}

/// Why an item is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The replica died, froze or was cut off.
    Lost,
    /// It was shutting down.
    Draining,
    /// It was full.
    Busy,
    /// Its model or its router's credentials failed.
    Failed,
    /// It no longer had the version that the router had chosen.
    Version,
    /// It did not have the image.
    Image,
}

// === impl Cause ===

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 6] =
        [Self::Lost, Self::Draining, Self::Busy, Self::Failed, Self::Version, Self::Image];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Draining => "draining",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::Version => "version",
            Self::Image => "image",
        }
    }
}

/// Judges a failed attempt. Being busy is no fault; a bad request is the caller's.
pub(crate) fn judge(error: &ClientError) -> (Outcome, Next) {
    let refusal = match error {
        ClientError::Connect(_) | ClientError::StreamEnded(None) => {
            return (Outcome::Fault, Next::Elsewhere(Cause::Lost));
        }
        ClientError::Url(_)
        | ClientError::Token
        | ClientError::Tenant
        | ClientError::Unreadable(_) => return (Outcome::Fault, Next::Elsewhere(Cause::Failed)),
        ClientError::Refused(refusal) | ClientError::StreamEnded(Some(refusal)) => refusal,
    };
    if refusal.reason.is_empty() {
        // Only Sleuth gives reasons: this is the transport's word.
        return (Outcome::Fault, Next::Elsewhere(Cause::Lost));
    }
    match refusal.class {
        ErrorClass::Draining => (Outcome::Busy, Next::Elsewhere(Cause::Draining)),
        ErrorClass::Overload => (Outcome::Busy, Next::Elsewhere(Cause::Busy)),
        ErrorClass::Quota => (Outcome::Busy, Next::Tell),
        ErrorClass::Unauthenticated | ErrorClass::Denied | ErrorClass::ModelFailure => {
            (Outcome::Fault, Next::Elsewhere(Cause::Failed))
        }
        ErrorClass::Unknown if refusal.reason == Reason::IMAGE_UNKNOWN.name() => {
            (Outcome::Good, Next::SendImage)
        }
        ErrorClass::VersionChanged => (Outcome::Good, Next::OtherVersion),
        ErrorClass::InvalidRequest
        | ErrorClass::TooLarge
        | ErrorClass::Unknown
        | ErrorClass::Deadline
        | ErrorClass::Cancelled
        | ErrorClass::Unsupported => (Outcome::Good, Next::Tell),
    }
}
