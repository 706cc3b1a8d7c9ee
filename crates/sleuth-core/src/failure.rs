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

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        impl Reason {
            $($(#[$doc])* pub const $name: Self = Self($text);)*

            /// Every registered reason.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

reasons! {
    /// The response holds no text.
    RESPONSE_EMPTY = "response_empty",
    /// The response has more bytes or tokens than the limit.
    RESPONSE_TOO_LARGE = "response_too_large",
    /// The response is not UTF-8.
    RESPONSE_NOT_UTF8 = "response_not_utf8",
    /// The prompt is not UTF-8.
    PROMPT_NOT_UTF8 = "prompt_not_utf8",
    /// The prompt has more bytes or tokens than the limit.
    PROMPT_TOO_LARGE = "prompt_too_large",
    /// The item has no image.
    IMAGE_MISSING = "image_missing",
    /// The image is named by a hash that this server does not hold.
    IMAGE_UNKNOWN = "image_unknown",
    /// The bytes are no image of a supported format.
    IMAGE_FORMAT = "image_format_unsupported",
    /// The image's bytes end early or are damaged.
    IMAGE_DAMAGED = "image_damaged",
    /// The image has more bytes or pixels than the limit.
    IMAGE_TOO_LARGE = "image_too_large",
    /// The item has more bytes than the limit.
    ITEM_TOO_LARGE = "item_too_large",
    /// No adapter of that name is loaded.
    ADAPTER_UNKNOWN = "adapter_unknown",
    /// The server runs another version than the one required.
    VERSION_MISMATCH = "version_mismatch",
    /// A field has a value outside its range.
    FIELD_INVALID = "field_invalid",
    /// A required field is absent.
    FIELD_MISSING = "field_missing",
    /// Two unfinished items of a stream have the same key.
    KEY_IN_USE = "key_in_use",
    /// This server does not offer what was asked.
    NOT_OFFERED = "not_offered",
    /// The queue is full.
    QUEUE_FULL = "queue_full",
    /// The server is draining.
    SERVER_DRAINING = "server_draining",
    /// The item's deadline passed before its scores were ready.
    DEADLINE_PASSED = "deadline_passed",
    /// The caller cancelled the item.
    CALLER_CANCELLED = "caller_cancelled",
    /// What was computed of an open item is not known any more.
    ITEM_LOST = "item_lost",
    /// The image is an animation of more frames than the limit.
    IMAGE_FRAMES = "image_too_many_frames",
    /// The image took longer to decode than the limit.
    IMAGE_SLOW = "image_decode_timeout",
    /// An image that was put has another digest or length than its header says.
    IMAGE_MISMATCH = "image_mismatch",
    /// The image store has no room for what is being put.
    IMAGE_STORE_FULL = "image_store_full",
    /// An idempotency key was used before for another item.
    IDEMPOTENCY_CONFLICT = "idempotency_conflict",
    /// The policy's tokens do not spell the response.
    POLICY_MISMATCH = "policy_tokens_mismatch",
    /// No unfinished item of the stream has this key.
    KEY_UNKNOWN = "key_unknown",
    /// An append starts behind what was received.
    APPEND_GAP = "append_gap",
    /// An append says something else than what was received.
    APPEND_CONFLICT = "append_conflict",
    /// An append or close came for an item that is whole or closed.
    ITEM_CLOSED = "item_closed",
    /// Nothing was appended to an open item for too long.
    ITEM_IDLE = "item_idle",
    /// The version that scores the item's group is no longer loaded.
    GROUP_VERSION_GONE = "group_version_gone",
    /// The tenant has as many unfinished items as it may.
    TENANT_ITEMS = "tenant_items",
    /// The tenant has used its device time.
    TENANT_DEVICE_TIME = "tenant_device_time",
    /// The predicted wait is over the limit.
    WAIT_TOO_LONG = "wait_too_long",
    /// A reward was NaN or infinite.
    NOT_FINITE = "reward_not_finite",
    /// The call has no credentials.
    TOKEN_MISSING = "token_missing",
    /// The call's token is not known.
    TOKEN_UNKNOWN = "token_unknown",
    /// The caller does not have the role that the call takes.
    ROLE_MISSING = "role_missing",
    /// The model is still loading.
    MODEL_LOADING = "model_loading",
    /// The corrector gave no repair.
    CORRECTOR_FAILED = "corrector_failed",
    /// No model or adapter folder of that name is under the model root.
    MODEL_UNKNOWN = "model_unknown",
    /// A model or adapter folder could not be loaded.
    MODEL_UNUSABLE = "model_unusable",
    /// A model does not give the rewards that its folder says a reference gave.
    SELF_TEST_FAILED = "self_test_failed",
    /// There is no memory for a model.
    MEMORY_SHORT = "memory_short",
    /// The adapter is what items without one use.
    ADAPTER_IN_USE = "adapter_in_use",
    /// The device worker failed.
    WORKER_FAILED = "worker_failed",
    /// No replica takes items now.
    NO_REPLICA = "no_replica",
    /// The replica that scored the item was lost, and no other one took over.
    REPLICA_LOST = "replica_lost",
    /// A reason that this build does not know, of a newer one.
    OTHER = "other",
}

impl Reason {
    /// The reason of a name, as another process gives it.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.0 == name)
    }

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
