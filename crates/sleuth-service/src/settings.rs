use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use crate::{AdmissionSettings, GroupSettings, IdempotencySettings, OpenSettings};

/// Bounds of a [`ScoreService`](crate::ScoreService), beside those of its engine and of its inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSettings {
    /// Items that are hashed, tokenised or decoded at the same time.
    pub prepare_threads: NonZeroUsize,
    /// Most items whose preparation waits or runs.
    pub max_preparing_items: usize,
    /// Most bytes of their images, as files. An image over this by itself is taken alone.
    pub max_preparing_bytes: usize,
    /// Longest time an item may take, and what it gets if it names none.
    pub max_timeout: Duration,
    /// How much work is taken in.
    pub admission: AdmissionSettings,
    /// Bytes of image files that were put and are held.
    pub image_store_bytes: u64,
    /// Largest image file that may be put.
    pub max_image_bytes: u64,
    /// Longest time that decoding one image may take.
    pub max_decode_time: Duration,
    /// Bytes of decoded pixels that are kept between items.
    pub pixel_cache_bytes: u64,
    /// How long verdicts are kept for those who ask again.
    pub idempotency: IdempotencySettings,
    /// How appended text is scored.
    pub open: OpenSettings,
    /// How long groups keep their version.
    pub groups: GroupSettings,
}

// === impl ServiceSettings ===

impl Default for ServiceSettings {
    /// A thread per core, 8,192 items, 1 GiB, ten minutes; 512 MiB of image files, 256 MiB of
    /// pixels.
    fn default() -> Self {
        Self {
            prepare_threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            max_preparing_items: 8192,
            max_preparing_bytes: 1 << 30,
            max_timeout: Duration::from_mins(10),
            admission: AdmissionSettings::default(),
            image_store_bytes: 512 << 20,
            max_image_bytes: 16 << 20,
            max_decode_time: Duration::from_secs(10),
            pixel_cache_bytes: 256 << 20,
            idempotency: IdempotencySettings::default(),
            open: OpenSettings::default(),
            groups: GroupSettings::default(),
        }
    }
}
