use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::PassTimes;

/// Measures one pass. A block takes tens of microseconds at least, and reading the clock well under
/// one.
#[derive(Debug)]
pub(super) struct Stopwatch {
    started: Instant,
    /// Nanoseconds of threads.
    prefixes: AtomicU64,
    responses: AtomicU64,
    head: AtomicU64,
}

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Prefixes,
    Responses,
    Head,
}

// === impl Stopwatch ===

impl Stopwatch {
    pub(super) fn start() -> Self {
        let zero = || AtomicU64::new(0);
        Self { started: now(), prefixes: zero(), responses: zero(), head: zero() }
    }

    /// Does a thread's work on a part.
    pub(super) fn time<R>(&self, part: Part, work: impl FnOnce() -> R) -> R {
        let start = now();
        let result = work();
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let counter = match part {
            Part::Prefixes => &self.prefixes,
            Part::Responses => &self.responses,
            Part::Head => &self.head,
        };
        counter.fetch_add(nanos, Ordering::Relaxed);
        result
    }

    pub(super) fn stop(self) -> PassTimes {
        let whole = self.started.elapsed();
        let [prefixes, responses, head] =
            [self.prefixes, self.responses, self.head].map(|nanos| nanos.into_inner() as f64);
        let total = (prefixes + responses + head).max(1.0);
        let share = |nanos: f64| whole.mul_f64(nanos / total);
        PassTimes { prefixes: share(prefixes), responses: share(responses), head: share(head) }
    }
}

#[expect(clippy::disallowed_methods, reason = "a device's threads have no tokio clock")]
fn now() -> Instant {
    Instant::now()
}
