use std::time::Duration;

/// How long a replica takes for what is predicted to take a second, as its verdicts show.
///
/// Devices differ, and one may be throttled; a training step is placed before its first report
/// could tell. What all replicas have in common, such as small batches, must not count: only the
/// pace against the others' is used, by [`stretch`].
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Since when something of this router is out there, and the seconds predicted for what ended
    /// since.
    busy: Option<(Duration, f64)>,
    seconds: Option<f64>,
}

/// Seconds of predicted work that one sample needs.
const LEAST_WORK: f64 = 0.1;
/// Where there is always something out, a sample is taken so often.
const WINDOW: Duration = Duration::from_secs(1);
/// Weight of a sample against those before.
const WEIGHT: f64 = 0.5;
/// Differences of up to this factor count as none.
const USUAL: f64 = 1.25;
/// No replica counts for faster or slower than this.
const LEAST: f64 = 0.5;
const MOST: f64 = 4.0;

// === impl Pace ===

impl Pace {
    /// An item goes out.
    pub(super) fn sent(&mut self, now: Duration) {
        self.busy.get_or_insert((now, 0.0));
    }

    /// An item ended that was predicted to take so long. True if the pace is another now.
    ///
    /// `worked`: it was computed. Time that went into one that failed says nothing.
    pub(super) fn ended(
        &mut self,
        seconds: f64,
        worked: bool,
        is_last: bool,
        now: Duration,
    ) -> bool {
        let Some((since, done)) = self.busy else { return false };
        let (elapsed, done) = (now.saturating_sub(since), done + seconds);
        self.busy = match (worked, is_last) {
            (_, true) => None,
            (false, false) => Some((now, 0.0)),
            (true, false) => Some((since, done)),
        };
        if !worked || done < LEAST_WORK || !(is_last || elapsed >= WINDOW) {
            return false;
        }
        self.busy = (!is_last).then_some((now, 0.0));
        let sample = elapsed.as_secs_f64() / done;
        self.seconds = Some(self.seconds.map_or(sample, |known| known + WEIGHT * (sample - known)));
        true
    }

    /// Seconds per predicted second; `None` before it was measured.
    pub(super) fn seconds(&self) -> Option<f64> {
        self.seconds
    }
}

/// By how much work takes longer on a replica of this pace than on the others: 1 where little is
/// known or the difference is usual.
pub(super) fn stretch(pace: Option<f64>, all: &[Option<f64>]) -> f64 {
    let mut known: Vec<f64> = all.iter().copied().flatten().collect();
    known.sort_by(f64::total_cmp);
    let (Some(pace), Some(&median)) = (pace, known.get(known.len() / 2)) else { return 1.0 };
    let stretch = pace / median;
    let is_usual = !stretch.is_finite() || (1.0 / USUAL..=USUAL).contains(&stretch);
    if is_usual || known.len() < 2 { 1.0 } else { stretch.clamp(LEAST, MOST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_busy_period_shows_the_pace() {
        let mut pace = Pace::default();
        pace.sent(at(1.0));
        pace.sent(at(1.0));
        assert!(!pace.ended(0.1, true, false, at(1.2)));
        assert!(pace.ended(0.1, true, true, at(1.4)));
        assert!((pace.seconds().unwrap() - 2.0).abs() < 1e-9);
        // Nothing was out in between.
        pace.sent(at(9.0));
        assert!(pace.ended(0.1, true, true, at(9.2)));
        assert!((pace.seconds().unwrap() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn what_fails_at_once_does_not_look_fast() {
        let mut pace = Pace::default();
        for _ in 0..10 {
            pace.sent(at(1.0));
            pace.ended(5.0, false, false, at(1.0));
        }
        assert!(!pace.ended(5.0, false, true, at(1.0)));
        assert_eq!(pace.seconds(), None);
    }

    #[test]
    fn only_what_differs_from_the_others_counts() {
        let all = [Some(3.0), Some(3.1), Some(6.0), None];
        let is_one = |stretch: f64| (stretch - 1.0).abs() < 1e-9;
        assert!(is_one(stretch(all[0], &all)));
        assert!(stretch(all[2], &all) > 1.9);
        assert!(is_one(stretch(None, &all)));
        assert!(is_one(stretch(Some(9.0), &[Some(9.0)])));
    }
}
