use std::time::Duration;

use serde::Serialize;

use super::measure::Latencies;

/// Most points of a series.
const MOST_POINTS: usize = 3600;

/// What happened in a second, or in several of a long run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Point {
    /// From the start of the run.
    pub second: u64,
    /// How many this point covers: a power of two.
    pub seconds: u64,
    /// Attempts that were sent.
    pub sent: u64,
    /// Valid verdicts.
    pub valid: u64,
    /// Refusals.
    pub refused: u64,
    /// Of the latency of the valid verdicts; where points were merged, the larger of theirs.
    pub p99_ms: Option<f64>,
}

/// Points over time, of which neighbours are merged where there would be too many.
#[derive(Debug)]
pub(super) struct Series {
    points: Vec<Point>,
    /// The one that is still to come into `points`.
    now: Point,
    /// Of `now`.
    latencies: Latencies,
}

// === impl Point ===

impl Point {
    fn merged(self, next: Self) -> Self {
        let larger = |a: f64, b: f64| a.max(b);
        Self {
            second: self.second,
            seconds: self.seconds + next.seconds,
            sent: self.sent + next.sent,
            valid: self.valid + next.valid,
            refused: self.refused + next.refused,
            p99_ms: self
                .p99_ms
                .zip(next.p99_ms)
                .map_or(self.p99_ms.or(next.p99_ms), |(a, b)| Some(larger(a, b))),
        }
    }
}

// === impl Series ===

impl Series {
    pub(super) fn new() -> Self {
        let now = Point { seconds: 1, ..Point::default() };
        Self { points: Vec::new(), now, latencies: Latencies::new() }
    }

    pub(super) fn sent(&mut self, at: Duration) {
        self.at(at).sent += 1;
    }

    pub(super) fn valid(&mut self, at: Duration, latency: Duration) {
        self.at(at).valid += 1;
        self.latencies.take(latency);
    }

    pub(super) fn refused(&mut self, at: Duration) {
        self.at(at).refused += 1;
    }

    /// The points; none where nothing happened.
    pub(super) fn finish(mut self) -> Vec<Point> {
        if self.now.second > 0 || self.now.sent > 0 {
            self.push();
        }
        self.points
    }

    /// The point of that moment; of one before the current point, the current one: verdicts are
    /// told a little after they came.
    fn at(&mut self, at: Duration) -> &mut Point {
        while at.as_secs() >= self.now.second + self.now.seconds {
            self.push();
        }
        &mut self.now
    }

    /// Puts the current point to the others and starts the next.
    fn push(&mut self) {
        self.now.p99_ms = self.latencies.quantile(0.99);
        // Clearing touches all of a histogram's memory, and a long pause has many empty seconds.
        if self.now.p99_ms.is_some() {
            self.latencies.clear();
        }
        self.points.push(self.now);
        let mut seconds = self.now.seconds;
        let second = self.now.second + seconds;
        if self.points.len() == MOST_POINTS {
            let pairs = self.points.chunks_exact(2);
            self.points = pairs.map(|pair| pair[0].merged(pair[1])).collect();
            seconds *= 2;
        }
        self.now = Point { second, seconds, ..Point::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_told_with_its_percentile() {
        let mut series = Series::new();
        series.sent(Duration::from_millis(100));
        series.valid(Duration::from_millis(900), Duration::from_millis(800));
        series.refused(Duration::from_millis(2100));
        // Told late.
        series.valid(Duration::from_millis(1900), Duration::from_millis(5));
        let points = series.finish();
        assert_eq!(points.len(), 3);
        assert_eq!((points[0].sent, points[0].valid, points[0].refused), (1, 1, 0));
        assert_eq!((points[2].valid, points[2].refused), (1, 1));
        assert!(points[0].p99_ms.is_some_and(|ms| (799.0..802.0).contains(&ms)));
        assert_eq!(points[1].p99_ms, None);
    }

    #[test]
    fn long_runs_are_merged_and_lose_nothing() {
        let mut series = Series::new();
        for second in 0..20_000 {
            series.sent(Duration::from_secs(second));
        }
        let points = series.finish();
        assert!(points.len() <= MOST_POINTS, "{}", points.len());
        assert_eq!(points.iter().map(|p| p.sent).sum::<u64>(), 20_000);
        assert!(points.windows(2).all(|p| p[0].second + p[0].seconds == p[1].second));
        assert!(points.iter().all(|p| p.seconds == 8));
    }

    #[test]
    fn nothing_makes_no_points() {
        assert_eq!(Series::new().finish(), []);
    }
}
