use std::time::Duration;

/// How a client connects, how much it has on its way, and what it tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// Items without a verdict on the shared stream; more wait their turn here.
    pub max_in_flight: usize,
    /// The largest reply that is read, in bytes; a batch's reply holds all its tokens.
    pub max_reply_bytes: usize,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time between HTTP/2 pings while something is on its way.
    pub keepalive_interval: Duration,
    /// A connection whose ping is unanswered this long is closed.
    pub keepalive_timeout: Duration,
    /// What is tried again.
    pub retry: RetrySettings,
    /// Bytes of images that were put and are kept here, to put them again should a server have
    /// lost them.
    pub kept_image_bytes: u64,
}

/// What is tried again. Every attempt has the item's idempotency key, so that a server scores it
/// once, however often it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// Attempts at an item, the first included; 1 tries nothing again.
    pub attempts: u32,
    /// Pause before the second attempt, where the server names none; doubled for each one after.
    pub first_pause: Duration,
    /// Longest pause, whatever the server says.
    pub longest_pause: Duration,
}

// === impl ClientSettings ===

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            max_in_flight: 256,
            max_reply_bytes: 64 << 20,
            connect_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            retry: RetrySettings::default(),
            kept_image_bytes: 256 << 20,
        }
    }
}

// === impl RetrySettings ===

impl RetrySettings {
    /// Tries nothing again.
    pub const NEVER: Self =
        Self { attempts: 1, first_pause: Duration::ZERO, longest_pause: Duration::ZERO };

    /// How long to wait after attempt `attempt` (from 1) failed, and the server asked for
    /// `asked`; `None` where that was the last. `jitter`, 0 to 1, spreads clients that failed
    /// together.
    pub(crate) fn pause(
        &self,
        attempt: u32,
        asked: Option<Duration>,
        jitter: f64,
    ) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let doubled = self.first_pause.saturating_mul(1 << (attempt - 1).min(16));
        let pause = asked.unwrap_or(doubled).min(self.longest_pause);
        Some(pause.mul_f64(1.0 + 0.5 * jitter.clamp(0.0, 1.0)))
    }
}

impl Default for RetrySettings {
    /// Six attempts, from 50 ms to 10 s apart.
    fn default() -> Self {
        Self {
            attempts: 6,
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_bound_and_obey_the_server() {
        let retry = RetrySettings::default();
        let millis = |attempt, asked, jitter| {
            retry.pause(attempt, asked, jitter).map(|pause| pause.as_millis())
        };
        assert_eq!(millis(1, None, 0.0), Some(50));
        assert_eq!(millis(3, None, 1.0), Some(300));
        assert_eq!(millis(2, Some(Duration::from_secs(3)), 0.0), Some(3000));
        assert_eq!(millis(2, Some(Duration::from_mins(3)), 0.0), Some(10_000));
        assert_eq!(millis(6, None, 0.0), None);
        assert_eq!(RetrySettings::NEVER.pause(1, None, 0.0), None);
    }
}
