//! What the contract names and a server does not offer: a plain UNIMPLEMENTED.

use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_wire::{Place, status};
use tonic::Status;

/// The answer to a call that is not offered.
pub(crate) fn not_offered(call: &str) -> Status {
    let detail = format!("this server does not offer {call}");
    status(&Failure::new(ErrorClass::Unsupported, Reason::NOT_OFFERED, detail), Place::Request)
}
