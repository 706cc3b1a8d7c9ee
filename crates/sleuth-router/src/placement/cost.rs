/// Predicted work in whole nanoseconds of one device, so that sums return to exactly 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost(u128);

/// A day: no single prediction counts for more. A sum of them cannot overflow.
const MOST: f64 = 86_400.0;

// === impl Cost ===

impl Cost {
    pub(super) const ZERO: Self = Self(0);

    /// Negative numbers and NaN count as 0.
    pub(super) fn from_seconds(seconds: f64) -> Self {
        // NaN stays NaN here, and the cast takes it for 0.
        Self((seconds.clamp(0.0, MOST) * 1e9).round() as u128)
    }

    pub(super) fn seconds(self) -> f64 {
        self.0 as f64 / 1e9
    }

    pub(super) fn add(&mut self, more: Self) {
        self.0 += more.0;
    }

    /// Never below 0: what was not there cannot be taken.
    pub(super) fn take(&mut self, less: Self) {
        self.0 = self.0.saturating_sub(less.0);
    }
}
