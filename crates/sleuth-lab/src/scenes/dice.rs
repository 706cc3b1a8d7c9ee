use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::Split;

/// Random draws of which every bit is fixed by (split, purpose, seed, index).
///
/// The mapping from bits to values is written here rather than taken from a library, so that an
/// upgrade never changes the data.
#[derive(Clone, Debug)]
pub(crate) struct Dice(ChaCha8Rng);

/// What draws are for: different purposes never share bits, so that asking for more captions does
/// not move an object.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Scene,
    Captions,
    Questions,
    CleanCaptions,
    Practice,
}

// === impl Dice ===

impl Dice {
    pub(crate) fn new(split: Split, purpose: Purpose, seed: u64, index: u64) -> Self {
        let mut key = [0_u8; 32];
        key[..16].copy_from_slice(b"sleuth scenes v2");
        key[16] = split as u8;
        key[17] = purpose as u8;
        key[24..].copy_from_slice(&seed.to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(index);
        Self(rng)
    }

    /// Uniform in `0..n`; `n` is at least 1 and small, so the bias of at most `n / 2^32` is moot.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.0.next_u32()) * n as u64) >> 32) as usize
    }

    /// Uniform in `0.0..1.0`.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / (1 << 24) as f32
    }

    /// Uniform in `low..high`.
    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// True with probability `p`.
    pub(crate) fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// One of `items`, or `None` where there are none.
    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        if items.is_empty() { None } else { Some(items[self.below(items.len())]) }
    }

    /// Puts `items` into a random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// An index of `weights`, drawn in proportion to them; their sum is above 0.
    pub(crate) fn weighted(&mut self, weights: &[u32]) -> usize {
        let total: u32 = weights.iter().sum();
        let mut left = self.below(total as usize) as u32;
        for (i, &w) in weights.iter().enumerate() {
            if left < w {
                return i;
            }
            left -= w;
        }
        weights.len() - 1
    }

    /// 32 random bits.
    pub(crate) fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }
}
