//! Spreads routers that start or fail together.

use std::hash::{BuildHasher as _, RandomState};

/// Numbers that differ from process to process and from call to call; nothing secret.
#[derive(Debug, Default)]
pub(super) struct Jitter {
    keys: RandomState,
    drawn: u64,
}

// === impl Jitter ===

impl Jitter {
    /// 0 to 1.
    pub(super) fn next(&mut self) -> f64 {
        self.drawn = self.drawn.wrapping_add(1);
        (self.keys.hash_one(self.drawn) >> 32) as f64 / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_spread_over_all_of_0_to_1() {
        let mut jitter = Jitter::default();
        let drawn: Vec<_> = (0..1000).map(|_| jitter.next()).collect();
        assert!(drawn.iter().all(|at| (0.0..=1.0).contains(at)));
        assert!(drawn.iter().any(|at| *at < 0.1) && drawn.iter().any(|at| *at > 0.9));
    }
}
