use std::fmt;
use std::time::Duration;

/// What kind of failure ended an item. Closed: every edge maps each class exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorClass {
    /// The request can never succeed as it is.
    InvalidRequest,
    /// A part of the request is over a stated limit.
    TooLarge,
    /// The caller did not say who it is.
    Unauthenticated,
    /// The caller may not do this.
    Denied,
    /// A named model, adapter or image is not here.
    Unknown,
    /// The tenant has used what it was given.
    Quota,
    /// The server is full for now.
    Overload,
    /// The server is shutting down.
    Draining,
    /// The item's time ran out.
    Deadline,
    /// The caller gave the item up.
    Cancelled,
    /// The model changed under a group.
    VersionChanged,
    /// This model or build does not offer what was asked.
    Unsupported,
    /// The model or the server failed.
    ModelFailure,
}

/// A registered, stable name for why something failed, such as `image_truncated`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reason(&'static str);

/// Why an item has no reward. Never a number.
///
/// `detail` is public text: it names fields and limits, never the content of a prompt, a response
/// or an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The class.
    pub class: ErrorClass,
    /// The registered reason.
    pub reason: Reason,
    /// The request field at fault, as a dotted path, if one is.
    pub field: Option<&'static str>,
    /// Public text: what is wrong and what to do.
    pub detail: String,
    /// When to try again, where trying again makes sense.
    pub retry_after: Option<Duration>,
}

// === impl ErrorClass ===

impl ErrorClass {
    /// Every class, in the order of the wire's numbers.
    pub const ALL: [Self; 13] = [
        Self::InvalidRequest,
        Self::TooLarge,
        Self::Unauthenticated,
        Self::Denied,
        Self::Unknown,
        Self::Quota,
        Self::Overload,
        Self::Draining,
        Self::Deadline,
        Self::Cancelled,
        Self::VersionChanged,
        Self::Unsupported,
        Self::ModelFailure,
    ];

    /// The name used in JSON, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::TooLarge => "too_large",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::Unknown => "unknown",
            Self::Quota => "quota",
            Self::Overload => "overload",
            Self::Draining => "draining",
            Self::Deadline => "deadline",
            Self::Cancelled => "cancelled",
            Self::VersionChanged => "version_changed",
            Self::Unsupported => "unsupported",
            Self::ModelFailure => "model_failure",
        }
    }

    /// Whether the same item fails in the same way whenever and wherever it is tried.
    pub const fn is_permanent(self) -> bool {
        matches!(self, Self::InvalidRequest | Self::TooLarge | Self::Unsupported)
    }

    /// Whether the same item may succeed later or elsewhere.
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Quota | Self::Overload | Self::Draining => true,
            Self::InvalidRequest
            | Self::TooLarge
            | Self::Unauthenticated
            | Self::Denied
            | Self::Unknown
            | Self::Deadline
            | Self::Cancelled
            | Self::VersionChanged
            | Self::Unsupported
            | Self::ModelFailure => false,
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Reason ===

impl Reason {
    /// The response holds no text.
    pub const RESPONSE_EMPTY: Self = Self("response_empty");
    /// The response has more bytes or tokens than the limit.
    pub const RESPONSE_TOO_LARGE: Self = Self("response_too_large");
    /// The response is not UTF-8.
    pub const RESPONSE_NOT_UTF8: Self = Self("response_not_utf8");
    /// The prompt is not UTF-8.
    pub const PROMPT_NOT_UTF8: Self = Self("prompt_not_utf8");
    /// The prompt has more bytes or tokens than the limit.
    pub const PROMPT_TOO_LARGE: Self = Self("prompt_too_large");
    /// The item has no image.
    pub const IMAGE_MISSING: Self = Self("image_missing");
    /// The image is named by a hash that this server does not hold.
    pub const IMAGE_UNKNOWN: Self = Self("image_unknown");
    /// The bytes are no image of a supported format.
    pub const IMAGE_FORMAT: Self = Self("image_format_unsupported");
    /// The image's bytes end early or are damaged.
    pub const IMAGE_DAMAGED: Self = Self("image_damaged");
    /// The image has more bytes or pixels than the limit.
    pub const IMAGE_TOO_LARGE: Self = Self("image_too_large");
    /// The item has more bytes than the limit.
    pub const ITEM_TOO_LARGE: Self = Self("item_too_large");
    /// No adapter of that name is loaded.
    pub const ADAPTER_UNKNOWN: Self = Self("adapter_unknown");
    /// The server runs another version than the one required.
    pub const VERSION_MISMATCH: Self = Self("version_mismatch");
    /// A field has a value outside its range.
    pub const FIELD_INVALID: Self = Self("field_invalid");
    /// A required field is absent.
    pub const FIELD_MISSING: Self = Self("field_missing");
    /// Two unfinished items of a stream have the same key.
    pub const KEY_IN_USE: Self = Self("key_in_use");
    /// This server does not offer what was asked.
    pub const NOT_OFFERED: Self = Self("not_offered");
    /// The queue is full.
    pub const QUEUE_FULL: Self = Self("queue_full");
    /// The server is draining.
    pub const SERVER_DRAINING: Self = Self("server_draining");
    /// The item's deadline passed before its scores were ready.
    pub const DEADLINE_PASSED: Self = Self("deadline_passed");
    /// The caller cancelled the item.
    pub const CALLER_CANCELLED: Self = Self("caller_cancelled");
    /// What was computed of an open item is not known any more.
    pub const ITEM_LOST: Self = Self("item_lost");
    /// The image is an animation of more frames than the limit.
    pub const IMAGE_FRAMES: Self = Self("image_too_many_frames");
    /// The image took longer to decode than the limit.
    pub const IMAGE_SLOW: Self = Self("image_decode_timeout");
    /// An image that was put has another digest or length than its header says.
    pub const IMAGE_MISMATCH: Self = Self("image_mismatch");
    /// The image store has no room for what is being put.
    pub const IMAGE_STORE_FULL: Self = Self("image_store_full");
    /// An idempotency key was used before for another item.
    pub const IDEMPOTENCY_CONFLICT: Self = Self("idempotency_conflict");
    /// The policy's tokens do not spell the response.
    pub const POLICY_MISMATCH: Self = Self("policy_tokens_mismatch");
    /// No unfinished item of the stream has this key.
    pub const KEY_UNKNOWN: Self = Self("key_unknown");
    /// An append starts behind what was received.
    pub const APPEND_GAP: Self = Self("append_gap");
    /// An append says something else than what was received.
    pub const APPEND_CONFLICT: Self = Self("append_conflict");
    /// An append or close came for an item that is whole or closed.
    pub const ITEM_CLOSED: Self = Self("item_closed");
    /// Nothing was appended to an open item for too long.
    pub const ITEM_IDLE: Self = Self("item_idle");
    /// The version that scores the item's group is no longer loaded.
    pub const GROUP_VERSION_GONE: Self = Self("group_version_gone");
    /// The tenant has as many unfinished items as it may.
    pub const TENANT_ITEMS: Self = Self("tenant_items");
    /// The tenant has used its device time.
    pub const TENANT_DEVICE_TIME: Self = Self("tenant_device_time");
    /// The predicted wait is over the limit.
    pub const WAIT_TOO_LONG: Self = Self("wait_too_long");
    /// A reward was NaN or infinite.
    pub const NOT_FINITE: Self = Self("reward_not_finite");
    /// The call has no credentials.
    pub const TOKEN_MISSING: Self = Self("token_missing");
    /// The call's token is not known.
    pub const TOKEN_UNKNOWN: Self = Self("token_unknown");
    /// The caller does not have the role that the call takes.
    pub const ROLE_MISSING: Self = Self("role_missing");
    /// The model is still loading.
    pub const MODEL_LOADING: Self = Self("model_loading");
    /// The corrector gave no repair.
    pub const CORRECTOR_FAILED: Self = Self("corrector_failed");
    /// No model or adapter folder of that name is under the model root.
    pub const MODEL_UNKNOWN: Self = Self("model_unknown");
    /// A model or adapter folder could not be loaded.
    pub const MODEL_UNUSABLE: Self = Self("model_unusable");
    /// A model does not give the rewards that its folder says a reference gave.
    pub const SELF_TEST_FAILED: Self = Self("self_test_failed");
    /// There is no memory for a model.
    pub const MEMORY_SHORT: Self = Self("memory_short");
    /// The adapter is what items without one use.
    pub const ADAPTER_IN_USE: Self = Self("adapter_in_use");
    /// The device worker failed.
    pub const WORKER_FAILED: Self = Self("worker_failed");

    /// The stable name.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

// === impl Failure ===

impl Failure {
    /// A failure without a field and without a hint when to retry.
    pub fn new(class: ErrorClass, reason: Reason, detail: impl Into<String>) -> Self {
        Self { class, reason, field: None, detail: detail.into(), retry_after: None }
    }

    /// Names the request field at fault.
    #[must_use]
    pub fn at(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Whether the same item may succeed later or elsewhere. An unknown image is retryable, as the
    /// client puts it again; so is an open item that was given up, as the client opens it again.
    pub fn is_retryable(&self) -> bool {
        self.class.is_retryable()
            || matches!(self.reason, Reason::IMAGE_UNKNOWN | Reason::ITEM_LOST | Reason::ITEM_IDLE)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field {
            Some(field) => write!(f, "{field}: {} ({})", self.detail, self.reason),
            None => write!(f, "{} ({})", self.detail, self.reason),
        }
    }
}

impl std::error::Error for Failure {}
