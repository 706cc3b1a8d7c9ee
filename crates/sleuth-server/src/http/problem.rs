use std::time::Duration;

use axum::body::Body;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use sleuth_core::{ErrorClass, Failure, Reason};

/// Why a request as a whole is not answered: vLLM's and OpenAI's error object.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    message: String,
    /// The field at fault.
    param: Option<String>,
    class: ErrorClass,
    reason: Reason,
    retryable: bool,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
    /// What is still being sent is not read.
    closes: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    error: Error<'a>,
}

#[derive(Serialize)]
struct Error<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: u16,
    class: &'static str,
    reason: &'static str,
    retryable: bool,
}

/// When to come again, where the failure itself does not say.
const RETRY_SOON: Duration = Duration::from_secs(1);

// === impl Problem ===

impl Problem {
    /// A field that says what it may not.
    pub(super) fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        let failure =
            Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_INVALID, message.into());
        Self::of(&failure).at(param)
    }

    /// Something too large, in a field or in all.
    pub(super) fn too_large(param: Option<&str>, message: impl Into<String>) -> Self {
        let failure = Failure::new(ErrorClass::TooLarge, Reason::ITEM_TOO_LARGE, message.into());
        let problem = Self::of(&failure);
        match param {
            Some(param) => problem.at(param),
            None => problem,
        }
    }

    pub(super) fn of(failure: &Failure) -> Self {
        let status = status_of(failure.class);
        let retryable = failure.is_retryable() || status == StatusCode::SERVICE_UNAVAILABLE;
        let soon = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_SOON);
        Self {
            status,
            message: failure.detail.clone(),
            param: None,
            class: failure.class,
            reason: failure.reason,
            retryable,
            retry_after: failure.retry_after.filter(|_| retryable).or(soon),
            allow: None,
            closes: false,
        }
    }

    /// No such path.
    pub(super) fn no_route() -> Self {
        let detail = "there is no such path here; docs/http.md lists all";
        let failure = Failure::new(ErrorClass::Unknown, Reason::NOT_OFFERED, detail);
        Self::of(&failure)
    }

    /// A path that another method is for.
    pub(super) fn method(allow: &'static str) -> Self {
        let detail = format!("this path takes {allow}");
        let failure = Failure::new(ErrorClass::InvalidRequest, Reason::NOT_OFFERED, detail);
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self { status, allow: Some(allow), ..Self::of(&failure) }
    }

    /// A body in an encoding that is not read.
    pub(super) fn encoding() -> Self {
        let detail = "compressed bodies are not read; send it without content-encoding";
        let failure = Failure::new(ErrorClass::Unsupported, Reason::NOT_OFFERED, detail);
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self { status, closes: true, ..Self::of(&failure) }
    }

    /// A body that does not arrive.
    pub(super) fn slow(seconds: u64) -> Self {
        let detail = format!("the body took over {seconds} s to arrive");
        let failure = Failure::new(ErrorClass::Deadline, Reason::DEADLINE_PASSED, detail);
        let status = StatusCode::REQUEST_TIMEOUT;
        Self { status, closes: true, ..Self::of(&failure) }
    }

    /// Names the field at fault.
    pub(super) fn at(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    /// The connection ends behind it.
    pub(super) fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    pub(super) fn response(&self) -> Response<Body> {
        let error = Error {
            message: &self.message,
            r#type: type_of(self.status),
            param: self.param.as_deref(),
            code: self.status.as_u16(),
            class: self.class.name(),
            reason: self.reason.name(),
            retryable: self.retryable,
        };
        let mut response = json(self.status, &Answer { error });
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, whole_seconds(after).into());
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    #[cfg(test)]
    pub(super) fn told(&self) -> (u16, Option<&str>, &str) {
        (self.status.as_u16(), self.param.as_deref(), &self.message)
    }
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    // Of structures with names as keys: nothing that JSON has not.
    let text = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The status of a failure that ends a request. What may pass is 503: veRL gives up at once at 429
/// as at any 4xx, and OpenRLHF comes again at both.
pub(super) const fn status_of(class: ErrorClass) -> StatusCode {
    match class {
        ErrorClass::InvalidRequest | ErrorClass::Unsupported => StatusCode::BAD_REQUEST,
        ErrorClass::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorClass::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorClass::Denied => StatusCode::FORBIDDEN,
        ErrorClass::Unknown => StatusCode::NOT_FOUND,
        ErrorClass::Quota
        | ErrorClass::Overload
        | ErrorClass::Draining
        | ErrorClass::Deadline
        | ErrorClass::Cancelled
        | ErrorClass::VersionChanged => StatusCode::SERVICE_UNAVAILABLE,
        ErrorClass::ModelFailure => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// As vLLM and OpenAI's clients know them.
const fn type_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "AuthenticationError",
        StatusCode::FORBIDDEN => "PermissionDeniedError",
        StatusCode::NOT_FOUND => "NotFoundError",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailableError",
        StatusCode::INTERNAL_SERVER_ERROR => "InternalServerError",
        _ => "BadRequestError",
    }
}

/// At least one: the header has no fractions, and 0 would mean at once.
fn whole_seconds(after: Duration) -> u64 {
    (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_503_with_a_time_and_nothing_is_429() {
        for class in ErrorClass::ALL {
            let failure = Failure::new(class, Reason::OTHER, "so");
            let response = Problem::of(&failure).response();
            let passes = response.status() == StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(response.headers().contains_key(RETRY_AFTER), passes, "{class}");
            assert!(!class.is_retryable() || passes, "{class}");
            assert_ne!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            assert!(!response.status().is_success());
        }
    }

    #[test]
    fn a_time_is_told_in_whole_seconds_upwards() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(500)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
    }
}
