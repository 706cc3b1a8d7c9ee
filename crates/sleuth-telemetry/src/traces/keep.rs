use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use opentelemetry::trace::{SpanKind, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample as _};

use super::{ItemKind, Parent, TraceStats};

/// What becomes of an item's spans, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Kept: its caller's trace is recorded, or it was drawn.
    Sampled,
    /// Kept: it failed.
    Failed,
    /// Kept: slower than 99 of 100 before it.
    Slow,
    /// Left out.
    LeftOut,
}

/// Decides, and counts.
#[derive(Debug)]
pub(super) struct Keep {
    sampler: Sampler,
    max_items: usize,
    recorded: AtomicUsize,
    whole: Mutex<Slow>,
    open: Mutex<Slow>,
    correct: Mutex<Slow>,
    sampled_count: AtomicU64,
    failed_count: AtomicU64,
    slow_count: AtomicU64,
    left_out_count: AtomicU64,
    unrecorded_count: AtomicU64,
}

/// The slowest hundredth of the last one to two [`WINDOW`]s of items.
#[derive(Debug)]
struct Slow {
    current: Option<Histogram<u32>>,
    before: Option<Histogram<u32>>,
    /// In microseconds; `None` until enough is known.
    threshold: Option<u64>,
    seen: u64,
}

/// Items after which the older half of what is known is forgotten.
const WINDOW: u64 = 2000;
/// Items from which a hundredth can be told.
const ENOUGH: u64 = 200;
/// Items after which the threshold is computed anew.
const REFRESH: u64 = 50;
const QUANTILE: f64 = 0.99;
/// An hour; more counts as so much.
const LONGEST_MICROS: u64 = 3_600_000_000;

// === impl Keep ===

impl Keep {
    pub(super) fn new(ratio: f64, max_items: usize) -> Self {
        Self {
            sampler: Sampler::TraceIdRatioBased(ratio),
            max_items,
            recorded: AtomicUsize::new(0),
            whole: Mutex::new(Slow::new()),
            open: Mutex::new(Slow::new()),
            correct: Mutex::new(Slow::new()),
            sampled_count: AtomicU64::new(0),
            failed_count: AtomicU64::new(0),
            slow_count: AtomicU64::new(0),
            left_out_count: AtomicU64::new(0),
            unrecorded_count: AtomicU64::new(0),
        }
    }

    /// Takes a place for an item's record; false where there is none.
    pub(super) fn enter(&self) -> bool {
        let room = self.recorded.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |recorded| {
            (recorded < self.max_items).then_some(recorded + 1)
        });
        if room.is_err() {
            self.unrecorded_count.fetch_add(1, Ordering::Relaxed);
        }
        room.is_ok()
    }

    pub(super) fn leave(&self) {
        self.recorded.fetch_sub(1, Ordering::Relaxed);
    }

    /// What failed is kept, and tells nothing of how long items take.
    pub(super) fn fail(&self) -> Decision {
        self.failed_count.fetch_add(1, Ordering::Relaxed);
        Decision::Failed
    }

    /// Decides on an item that was scored in `took`.
    pub(super) fn decide(
        &self,
        kind: ItemKind,
        trace_id: TraceId,
        parent: Option<&Parent>,
        took: Duration,
    ) -> Decision {
        let is_slow = self.slow(kind).is_slow(took);
        let (decision, counter) = if self.is_drawn(trace_id, parent) {
            (Decision::Sampled, &self.sampled_count)
        } else if is_slow {
            (Decision::Slow, &self.slow_count)
        } else {
            (Decision::LeftOut, &self.left_out_count)
        };
        counter.fetch_add(1, Ordering::Relaxed);
        decision
    }

    pub(super) fn stats(&self) -> TraceStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TraceStats {
            sampled: get(&self.sampled_count),
            failed: get(&self.failed_count),
            slow: get(&self.slow_count),
            left_out: get(&self.left_out_count),
            unrecorded: get(&self.unrecorded_count),
            recorded_items: self.recorded.load(Ordering::Relaxed) as u64,
            ..TraceStats::default()
        }
    }

    /// What is known before an item ends.
    pub(super) fn is_drawn(&self, trace_id: TraceId, parent: Option<&Parent>) -> bool {
        if let Some(parent) = parent {
            return parent.sampled;
        }
        let drawn = self.sampler.should_sample(None, trace_id, "item", &SpanKind::Server, &[], &[]);
        drawn.decision == SamplingDecision::RecordAndSample
    }

    /// Nothing panics while the lock is held.
    fn slow(&self, kind: ItemKind) -> MutexGuard<'_, Slow> {
        let slow = match kind {
            ItemKind::Whole => &self.whole,
            ItemKind::Open => &self.open,
            ItemKind::Correct => &self.correct,
        };
        slow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Slow ===

impl Slow {
    fn new() -> Self {
        // Two digits: the histograms stay within some tens of kilobytes.
        let empty = || Histogram::new_with_bounds(1, LONGEST_MICROS, 2).ok();
        Self { current: empty(), before: empty(), threshold: None, seen: 0 }
    }

    /// Whether an item is among the slowest of those before it; from now on it is one of them.
    fn is_slow(&mut self, took: Duration) -> bool {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(1, LONGEST_MICROS);
        let slow = self.threshold.is_some_and(|threshold| micros > threshold);
        let (Some(current), Some(before)) = (&mut self.current, &mut self.before) else {
            return false;
        };
        current.saturating_record(micros);
        self.seen += 1;
        if self.seen.is_multiple_of(REFRESH) {
            let mut both = before.clone();
            if both.add(&*current).is_ok() && both.len() >= ENOUGH {
                self.threshold = Some(both.value_at_quantile(QUANTILE));
            }
        }
        if self.seen.is_multiple_of(WINDOW) {
            std::mem::swap(current, before);
            current.reset();
        }
        slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(keep: &Keep, kind: ItemKind, millis: u64) -> Decision {
        keep.decide(kind, TraceId::from(u128::MAX), None, Duration::from_millis(millis))
    }

    #[test]
    fn the_slowest_hundredth_is_kept_and_follows_what_is_usual() {
        let keep = Keep::new(0.0, 1);
        let slow = |factor: u64, items: u64| {
            let decisions =
                (0..items).map(|n| item(&keep, ItemKind::Whole, factor * (1 + n * 7919 % 1000)));
            decisions.filter(|decision| *decision == Decision::Slow).count()
        };
        assert!((50..=200).contains(&slow(1, 10_000)), "about 1 %");
        assert!(slow(10, 40) >= 30, "what is slower than all before is kept");
        assert!((50..=300).contains(&slow(10, 10_000)), "and soon is usual");
    }

    #[test]
    fn equal_items_are_not_slow() {
        let keep = Keep::new(0.0, 1);
        assert!((0..5000).all(|_| item(&keep, ItemKind::Whole, 20) == Decision::LeftOut));
        assert_eq!(item(&keep, ItemKind::Open, 200), Decision::LeftOut, "another kind");
        assert_eq!(item(&keep, ItemKind::Whole, 200), Decision::Slow);
    }

    #[test]
    fn a_caller_decides_for_its_trace_unless_the_item_fails() {
        let keep = Keep::new(1.0, 1);
        let parent =
            |sampled| Parent { trace_id: [1; 16], span_id: [1; 8], sampled, state: String::new() };
        let decide = |sampled| {
            let parent = parent(sampled);
            keep.decide(ItemKind::Whole, TraceId::from(1), Some(&parent), Duration::ZERO)
        };
        assert_eq!(decide(true), Decision::Sampled);
        assert_eq!(decide(false), Decision::LeftOut);
        assert_eq!((keep.fail(), keep.stats().failed), (Decision::Failed, 1));
    }

    #[test]
    fn a_share_of_the_traces_that_begin_here_is_kept() {
        let keep = Keep::new(0.25, 1);
        let ids = (0..4000_u128).map(|n| TraceId::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let kept = ids.filter(|&id| keep.is_drawn(id, None)).count();
        assert!((800..1200).contains(&kept), "{kept}");
    }

    #[test]
    fn records_are_bounded_and_what_finds_no_place_is_counted() {
        let keep = Keep::new(0.0, 2);
        assert!(keep.enter() && keep.enter() && !keep.enter());
        keep.leave();
        assert!(keep.enter());
        assert_eq!((keep.stats().unrecorded, keep.stats().recorded_items), (1, 2));
    }
}
