use std::time::Duration;

use crate::policy::Limits;
use crate::{ModelFacts, StartError};

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
    /// Bytes of keys and values that all running batches together hold at most.
    pub max_batch_kv_bytes: u64,
    /// Items that are being generated at a time.
    pub max_open_items: usize,
    /// Bytes of keys and values that are kept of them; beyond that the least recently used are
    /// dropped and computed again when needed.
    pub max_open_bytes: u64,
    /// Percent of a batch that items being generated take at most while whole ones wait.
    pub open_share: usize,
    /// An item that waited for so long runs next, whatever its priority and tenant.
    pub patience: Duration,
    /// Panics in a row after which the worker counts as unhealthy.
    pub max_panics_in_a_row: u32,
}

// === impl EngineSettings ===

impl EngineSettings {
    pub(crate) fn limits(&self, facts: &ModelFacts) -> Limits {
        Limits {
            queue_items: self.max_queue_items,
            queue_tokens: self.max_queue_tokens,
            batch_items: self.max_batch_items,
            batch_tokens: self.max_batch_tokens,
            kv_bytes: self.max_batch_kv_bytes,
            kv_bytes_per_token: facts.kv.row_bytes,
            kv_page: facts.kv.page_rows,
            image_tokens: facts.image_tokens,
            patience: self.patience,
            open_share: self.open_share,
        }
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        let zero = [
            ("max_queue_items", self.max_queue_items == 0),
            ("max_queue_tokens", self.max_queue_tokens == 0),
            ("max_batch_items", self.max_batch_items == 0),
            ("max_batch_tokens", self.max_batch_tokens == 0),
            ("max_batch_kv_bytes", self.max_batch_kv_bytes == 0),
            ("max_open_items", self.max_open_items == 0),
            ("open_share", self.open_share == 0),
            ("max_panics_in_a_row", self.max_panics_in_a_row == 0),
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
            max_batch_kv_bytes: 2 << 30,
            max_open_items: 1024,
            max_open_bytes: 1 << 30,
            open_share: 50,
            patience: Duration::from_secs(5),
            max_panics_in_a_row: 3,
        }
    }
}
