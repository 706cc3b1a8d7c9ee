use std::fmt;
use std::time::Duration;

use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::status::{CLASS_KEY, class_of_code};
use crate::{Place, class_from_wire};

/// Why a server gave no reward, as a client reads it from a verdict or a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The class; a class of a newer server reads as a model failure.
    pub class: ErrorClass,
    /// The registered reason; empty where the server is not Sleuth.
    pub reason: String,
    /// The request field at fault as a dotted path, if one is.
    pub field: Option<String>,
    /// Public text.
    pub detail: String,
    /// When to try again, where that makes sense.
    pub retry_after: Option<Duration>,
    /// Whether the same item may succeed later or elsewhere.
    pub retryable: bool,
}

/// The fields that a scorer may find fault with, as it names them.
const FIELDS: [&str; 14] = [
    "context.adapter",
    "context.group.id",
    "context.idempotency_key",
    "context.image",
    "context.image.blake3",
    "context.image.data",
    "context.options.threshold",
    "context.prompt",
    "context.required_version",
    "corrector",
    "offset",
    "policy",
    "response",
    "text",
];

// === impl Refusal ===

impl Refusal {
    /// The failure that a server refused an item with, for whoever passes it on; `place` is where
    /// the item stood in the request.
    ///
    /// What this build does not know is told in `detail` alone: the reason is then
    /// [`Reason::OTHER`], and no field is named.
    pub fn into_failure(self, place: Place) -> Failure {
        let reason = Reason::named(&self.reason).unwrap_or(Reason::OTHER);
        let named = |field: &String| FIELDS.into_iter().find(|known| place.path(known) == *field);
        Failure {
            class: self.class,
            reason,
            field: self.field.as_ref().and_then(named),
            detail: self.detail,
            retry_after: self.retry_after,
        }
    }
}

impl From<v1::Invalid> for Refusal {
    fn from(wire: v1::Invalid) -> Self {
        Self {
            class: class_from_wire(wire.class),
            reason: wire.reason,
            field: (!wire.field.is_empty()).then_some(wire.field),
            detail: wire.detail,
            retry_after: wire.retry_after.and_then(|d| d.try_into().ok()),
            retryable: wire.retryable,
        }
    }
}

impl From<&Status> for Refusal {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let named = info.and_then(|i| i.metadata.get(CLASS_KEY));
        let class = named
            .and_then(|name| ErrorClass::ALL.into_iter().find(|c| c.name() == name))
            .unwrap_or_else(|| class_of_code(status.code()));
        let retry_after = details.retry_info().and_then(|r| r.retry_delay);
        let field = details
            .bad_request()
            .and_then(|b| b.field_violations.first())
            .map(|v| v.field.clone())
            .filter(|f| !f.is_empty());
        Self {
            class,
            reason: info.map(|i| i.reason.to_ascii_lowercase()).unwrap_or_default(),
            field,
            detail: status.message().to_owned(),
            retryable: retry_after.is_some()
                || class.is_retryable()
                || status.code() == Code::Unavailable,
            retry_after,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        write!(f, "{} ({}", self.detail, self.class)?;
        if !self.reason.is_empty() {
            write!(f, ", {}", self.reason)?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for Refusal {}
