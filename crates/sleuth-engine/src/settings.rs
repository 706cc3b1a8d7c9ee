use crate::StartError;
use crate::policy::Limits;

/// Bounds of an engine. All at least 1.
///
/// Tokens count each response, and once per distinct (image, prompt) the prefix: the image's
/// rows and the prompt. An item that is over a token bound by itself is still taken, alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// Most items that wait, reserved room included.
    pub max_queue_items: usize,
    /// Most tokens that wait. Bounds memory too: a prefix token of an image that waits stands for
    /// about 2.3 KB of pixels.
    pub max_queue_tokens: usize,
    /// Most items of a batch.
    pub max_batch_items: usize,
    /// Most tokens of a batch.
    pub max_batch_tokens: usize,
    /// Panics in a row after which the worker counts as unhealthy.
    pub max_panics_in_a_row: u32,
}

// === impl EngineSettings ===

impl EngineSettings {
    pub(crate) fn limits(&self, image_tokens: usize) -> Limits {
        Limits {
            queue_items: self.max_queue_items,
            queue_tokens: self.max_queue_tokens,
            batch_items: self.max_batch_items,
            batch_tokens: self.max_batch_tokens,
            image_tokens,
        }
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        let Self {
            max_queue_items,
            max_queue_tokens,
            max_batch_items,
            max_batch_tokens,
            max_panics_in_a_row,
        } = *self;
        let zero = [
            ("max_queue_items", max_queue_items == 0),
            ("max_queue_tokens", max_queue_tokens == 0),
            ("max_batch_items", max_batch_items == 0),
            ("max_batch_tokens", max_batch_tokens == 0),
            ("max_panics_in_a_row", max_panics_in_a_row == 0),
        ];
        match zero.into_iter().find(|&(_, is_zero)| is_zero) {
            Some((name, _)) => Err(StartError::Setting(name)),
            None => Ok(()),
        }
    }
}

impl Default for EngineSettings {
    /// A queue of eight groups of 1,024 rollouts, and batches of about one group of 64.
    fn default() -> Self {
        Self {
            max_queue_items: 8192,
            max_queue_tokens: 1 << 20,
            max_batch_items: 64,
            max_batch_tokens: 8192,
            max_panics_in_a_row: 3,
        }
    }
}
