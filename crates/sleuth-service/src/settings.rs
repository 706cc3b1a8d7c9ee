use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

/// Bounds of a [`ScoreService`](crate::ScoreService), beside those of its engine and of its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Items that are hashed, tokenised or decoded at the same time.
    pub prepare_threads: NonZeroUsize,
    /// Most items whose preparation waits or runs.
    pub max_preparing_items: usize,
    /// Most bytes of their images, as files. An image over this by itself is taken alone.
    pub max_preparing_bytes: usize,
    /// Longest time an item may take, and what it gets if it names none.
    pub max_timeout: Duration,
}

// === impl ServiceSettings ===

impl Default for ServiceSettings {
    /// A thread per core, 8,192 items, 1 GiB, ten minutes.
    fn default() -> Self {
        Self {
            prepare_threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            max_preparing_items: 8192,
            max_preparing_bytes: 1 << 30,
            max_timeout: Duration::from_mins(10),
        }
    }
}
