use std::time::Duration;

/// What a server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Encoded size of one item: image, prompt, response and the rest.
    pub max_item_bytes: usize,
    /// A prompt's UTF-8.
    pub max_prompt_bytes: usize,
    /// A response's UTF-8.
    pub max_response_bytes: usize,
    /// Items of one batch.
    pub max_batch_items: usize,
    /// Time for one item, from receipt to verdict.
    pub max_timeout: Duration,
}

/// The longest id, adapter, version or idempotency key, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 256;
/// The longest `traceparent`, in bytes.
pub(crate) const MAX_TRACEPARENT_BYTES: usize = 64;
/// The longest `tracestate`, in bytes.
pub(crate) const MAX_TRACESTATE_BYTES: usize = 512;

// === impl Limits ===

impl Limits {
    /// The largest message: twice the largest item, so that an item that is somewhat too large
    /// still gets a verdict that says so.
    pub const fn max_message_bytes(&self) -> usize {
        self.max_item_bytes.saturating_mul(2)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_item_bytes: 16 << 20,
            max_prompt_bytes: 64 << 10,
            max_response_bytes: 256 << 10,
            max_batch_items: 256,
            max_timeout: Duration::from_mins(5),
        }
    }
}
