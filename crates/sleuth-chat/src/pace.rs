use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lets requests through at an even rate, in the order in which they ask.
#[derive(Debug)]
pub struct Pace {
    gap: Duration,
    /// When the next one may go.
    next: Mutex<Option<Instant>>,
}

// === impl Pace ===

impl Pace {
    /// So many per minute; `None` is no limit.
    pub fn per_minute(rate: Option<u32>) -> Self {
        let gap = rate.map_or(Duration::ZERO, |r| Duration::from_mins(1) / r.max(1));
        Self { gap, next: Mutex::new(None) }
    }

    /// Waits for a turn.
    pub async fn turn(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let at = next.map_or(now, |next| next.max(now));
            *next = Some(at + self.gap);
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_evenly_and_idle_time_is_not_saved_up() {
        let pace = Pace::per_minute(Some(60));
        let start = Instant::now();
        pace.turn().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        pace.turn().await;
        pace.turn().await;
        assert_eq!(start.elapsed().as_secs(), 2);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let resumed = Instant::now();
        pace.turn().await;
        pace.turn().await;
        assert_eq!(resumed.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nothing_waits() {
        let pace = Pace::per_minute(None);
        let start = Instant::now();
        for _ in 0..1000 {
            pace.turn().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
