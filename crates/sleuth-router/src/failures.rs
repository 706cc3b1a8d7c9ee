//! Why the router itself has no reward for an item.

use std::time::Duration;

use sleuth_client::ClientError;
use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_wire::Place;

use crate::placement::Unplaced;

/// When to try again where no replica takes items.
const SOON: Duration = Duration::from_secs(1);

pub(crate) fn unplaced(why: &Unplaced) -> Failure {
    if *why == Unplaced::NoneWithVersion {
        let detail = "no replica answers with the version that is required";
        return Failure::new(ErrorClass::VersionChanged, Reason::VERSION_MISMATCH, detail)
            .at("context.required_version");
    }
    Failure::new(ErrorClass::Overload, Reason::NO_REPLICA, why.to_string()).retry_after(SOON)
}

pub(crate) fn lost() -> Failure {
    let detail = "the replica that had the item was lost; send it again";
    Failure::new(ErrorClass::Overload, Reason::REPLICA_LOST, detail)
        .retry_after(Duration::from_millis(100))
}

pub(crate) fn deadline() -> Failure {
    let detail = "the item's time ran out before its scores were ready";
    Failure::new(ErrorClass::Deadline, Reason::DEADLINE_PASSED, detail)
}

pub(crate) fn cancelled() -> Failure {
    Failure::new(ErrorClass::Cancelled, Reason::CALLER_CANCELLED, "the caller gave the item up")
}

/// Another version answers now than the one whose rewards were delivered.
pub(crate) fn version_gone() -> Failure {
    let detail = "the version that scored the first of this item is gone, and rewards of two are \
                  never mixed; send the item anew";
    Failure::new(ErrorClass::VersionChanged, Reason::GROUP_VERSION_GONE, detail)
}

/// What a replica's answer means for the caller; `place` is where the item stood in the request.
pub(crate) fn of_replica(error: ClientError, place: Place) -> Failure {
    match error {
        ClientError::Refused(refusal) => refusal.into_failure(place),
        ClientError::Connect(_) | ClientError::StreamEnded(_) => lost(),
        ClientError::Url(_)
        | ClientError::Token
        | ClientError::Tenant
        | ClientError::Unreadable(_) => {
            tracing::error!(%error, "a replica's answer is of no use");
            let detail = "a replica answered what the router cannot read";
            Failure::new(ErrorClass::ModelFailure, Reason::WORKER_FAILED, detail)
        }
    }
}
