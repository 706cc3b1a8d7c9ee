use std::time::Duration;

/// How much work is still to come, if this burst is like the last.
///
/// Whether a group that exceeds what all others have will be a straggler depends on what comes
/// after it, which nobody knows. But training steps have as many items as the one before, and
/// their lengths show while they come.
#[derive(Clone, Debug, Default)]
pub(super) struct Horizon {
    current: Burst,
    last: Option<(Burst, Duration)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Burst {
    items: f64,
    /// Seconds of all that was placed.
    cost: f64,
    /// Most load per replica, in seconds.
    load: f64,
    /// What this router had out then, in seconds.
    out: f64,
}

/// A burst is over when so much of its most load is left: the next one may overlap it.
const REST: f64 = 0.1;
/// No burst is expected to bring more than so many times the load of the last: where work is done
/// as it comes, items to come say little of the load.
const GROWTH: f64 = 2.0;

// === impl Horizon ===

impl Horizon {
    /// Takes note of items that come and the seconds they should take, of the load per replica
    /// with them, and of what this router has out in all.
    pub(super) fn placed(&mut self, items: u32, seconds: f64, mean: f64, out: f64) {
        self.current.items += f64::from(items);
        self.current.cost += seconds;
        if mean > self.current.load {
            (self.current.load, self.current.out) = (mean, out);
        }
    }

    /// Items take so many seconds more than was expected of them, or less.
    pub(super) fn corrected(&mut self, seconds: f64) {
        self.current.cost = (self.current.cost + seconds).max(0.0);
    }

    /// Takes note that something ended.
    pub(super) fn ended(&mut self, out: f64, now: Duration) {
        if self.current.load > 0.0 && out <= REST * self.current.out {
            self.last = Some((std::mem::take(&mut self.current), now));
        }
    }

    /// The load per replica to expect in the end, in seconds, where it is `mean` now; `None` if
    /// there was no burst lately.
    pub(super) fn expected(
        &self,
        mean: f64,
        replicas: usize,
        now: Duration,
        memory: Duration,
    ) -> Option<f64> {
        let (last, at) = self.last?;
        if now.saturating_sub(at) > memory {
            return None;
        }
        let seen = if self.current.items > 0.0 { &self.current } else { &last };
        let left = (last.items - self.current.items).max(0.0);
        let to_come = left * seen.cost / (seen.items.max(1.0) * replicas.max(1) as f64);
        Some((mean + to_come).min(GROWTH * last.load))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Duration = Duration::from_mins(1);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_a_burst_brought_is_expected_of_the_next_at_its_own_lengths() {
        let mut horizon = Horizon::default();
        horizon.placed(8, 8.0, 1.0, 8.0);
        horizon.placed(8, 8.0, 2.0, 16.0);
        horizon.ended(8.0, Duration::ZERO);
        assert_eq!(horizon.expected(1.0, 8, SECOND, MEMORY), None);
        horizon.ended(1.0, SECOND);
        assert_eq!(horizon.expected(0.0, 8, SECOND, MEMORY), Some(2.0));
        horizon.placed(8, 12.0, 1.5, 12.0);
        assert_eq!(horizon.expected(1.5, 8, SECOND, MEMORY), Some(3.0));
        horizon.placed(8, 12.0, 3.0, 24.0);
        assert_eq!(horizon.expected(3.0, 8, SECOND, MEMORY), Some(3.0));
        assert_eq!(horizon.expected(1.5, 8, 62 * SECOND, MEMORY), None);
    }
}
