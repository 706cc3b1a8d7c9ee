use std::collections::HashMap;

use sleuth_core::{ErrorClass, Failure};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::Place;

/// Who speaks in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "sleuth";
/// Where `google.rpc.ErrorInfo` names the class.
pub(crate) const CLASS_KEY: &str = "class";

/// The one mapping of classes to gRPC codes.
pub const fn code(class: ErrorClass) -> Code {
    match class {
        ErrorClass::InvalidRequest | ErrorClass::TooLarge => Code::InvalidArgument,
        ErrorClass::Unauthenticated => Code::Unauthenticated,
        ErrorClass::Denied => Code::PermissionDenied,
        ErrorClass::Unknown => Code::NotFound,
        ErrorClass::Quota => Code::ResourceExhausted,
        ErrorClass::Overload | ErrorClass::Draining => Code::Unavailable,
        ErrorClass::Deadline => Code::DeadlineExceeded,
        ErrorClass::Cancelled => Code::Cancelled,
        ErrorClass::VersionChanged => Code::Aborted,
        ErrorClass::Unsupported => Code::Unimplemented,
        ErrorClass::ModelFailure => Code::Internal,
    }
}

/// What a code most likely means where no class is named.
pub(crate) const fn class_of_code(code: Code) -> ErrorClass {
    match code {
        Code::InvalidArgument | Code::FailedPrecondition => ErrorClass::InvalidRequest,
        Code::OutOfRange => ErrorClass::TooLarge,
        Code::Unauthenticated => ErrorClass::Unauthenticated,
        Code::PermissionDenied => ErrorClass::Denied,
        Code::NotFound => ErrorClass::Unknown,
        Code::ResourceExhausted => ErrorClass::Quota,
        Code::Unavailable => ErrorClass::Overload,
        Code::DeadlineExceeded => ErrorClass::Deadline,
        Code::Cancelled => ErrorClass::Cancelled,
        Code::Aborted => ErrorClass::VersionChanged,
        Code::Unimplemented => ErrorClass::Unsupported,
        Code::Ok | Code::Unknown | Code::AlreadyExists | Code::Internal | Code::DataLoss => {
            ErrorClass::ModelFailure
        }
    }
}

/// A failure as the status of a call, with `google.rpc` details.
///
/// Always `ErrorInfo`; `BadRequest` for what the caller must change, `QuotaFailure` for a quota,
/// `ResourceInfo` for what is not here, `RetryInfo` where trying again helps.
pub fn status(failure: &Failure, place: Place) -> Status {
    let field = failure.field.map(|f| place.path(f)).unwrap_or_default();
    let mut details = ErrorDetails::new();
    let metadata = HashMap::from([(CLASS_KEY.to_owned(), failure.class.name().to_owned())]);
    details.set_error_info(failure.reason.name().to_ascii_uppercase(), DOMAIN, metadata);
    match failure.class {
        ErrorClass::InvalidRequest | ErrorClass::TooLarge => {
            details.add_bad_request_violation(field, failure.detail.clone());
        }
        ErrorClass::Unknown => {
            details.set_resource_info(failure.reason.name(), field, "", failure.detail.clone());
        }
        ErrorClass::Quota => {
            details.add_quota_failure_violation("tenant", failure.detail.clone());
        }
        ErrorClass::Unauthenticated
        | ErrorClass::Denied
        | ErrorClass::Overload
        | ErrorClass::Draining
        | ErrorClass::Deadline
        | ErrorClass::Cancelled
        | ErrorClass::VersionChanged
        | ErrorClass::Unsupported
        | ErrorClass::ModelFailure => {}
    }
    if failure.retry_after.is_some() || failure.is_retryable() {
        details.set_retry_info(failure.retry_after);
    }
    Status::with_error_details(code(failure.class), failure.detail.clone(), details)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sleuth_core::Reason;

    use super::*;
    use crate::Refusal;

    #[test]
    fn every_class_has_the_code_of_the_table() {
        let table = [
            (ErrorClass::InvalidRequest, Code::InvalidArgument),
            (ErrorClass::TooLarge, Code::InvalidArgument),
            (ErrorClass::Unauthenticated, Code::Unauthenticated),
            (ErrorClass::Denied, Code::PermissionDenied),
            (ErrorClass::Unknown, Code::NotFound),
            (ErrorClass::Quota, Code::ResourceExhausted),
            (ErrorClass::Overload, Code::Unavailable),
            (ErrorClass::Draining, Code::Unavailable),
            (ErrorClass::Deadline, Code::DeadlineExceeded),
            (ErrorClass::Cancelled, Code::Cancelled),
            (ErrorClass::VersionChanged, Code::Aborted),
            (ErrorClass::Unsupported, Code::Unimplemented),
            (ErrorClass::ModelFailure, Code::Internal),
        ];
        assert_eq!(table.map(|(class, _)| class), ErrorClass::ALL);
        for (class, expected) in table {
            assert_eq!(code(class), expected, "{class}");
        }
    }

    #[test]
    fn a_status_reads_back_as_the_same_refusal() {
        for class in ErrorClass::ALL {
            let failure = Failure::new(class, Reason::QUEUE_FULL, "why")
                .retry_after(Duration::from_millis(250));
            let refusal = Refusal::from(&status(&failure, Place::Request));
            assert_eq!(refusal.class, class);
            assert_eq!(refusal.reason, "queue_full");
            assert_eq!(refusal.detail, "why");
            assert_eq!(refusal.retry_after, Some(Duration::from_millis(250)));
        }
    }

    #[test]
    fn details_follow_the_class() {
        let bad = Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_INVALID, "no").at("text");
        let details = status(&bad, Place::Request).get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "text");
        assert!(details.retry_info().is_none());

        let quota = Failure::new(ErrorClass::Quota, Reason::QUEUE_FULL, "used up");
        let details = status(&quota, Place::Request).get_error_details();
        assert!(details.quota_failure().is_some() && details.retry_info().is_some());

        let unknown = Failure::new(ErrorClass::Unknown, Reason::ADAPTER_UNKNOWN, "not here");
        let details = status(&unknown, Place::Request).get_error_details();
        assert_eq!(details.resource_info().unwrap().resource_type, "adapter_unknown");
    }

    #[test]
    fn a_status_of_another_server_still_has_a_class() {
        let refusal = Refusal::from(&Status::unavailable("connection refused"));
        assert_eq!((refusal.class, refusal.retryable), (ErrorClass::Overload, true));
        assert_eq!(refusal.reason, "");
    }
}
