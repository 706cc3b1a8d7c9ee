use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::histogram::Histogram;
use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Collector, Family, Registry};

/// A task that asks to be woken and measures how late it is: what every other task waits too. Ends
/// when dropped.
#[derive(Debug)]
#[must_use = "dropping the canary ends it"]
pub struct Canary {
    task: JoinHandle<()>,
}

/// What tokio tells of the runtime.
struct Runtime {
    metrics: RuntimeMetrics,
}

/// How often it wakes.
const PERIOD: Duration = Duration::from_millis(100);

/// Upper bounds of its lag: a timer of tokio's may be a millisecond late as such.
const BOUNDS: [f64; 9] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

// === impl Canary ===

impl Canary {
    /// Watches the runtime it is called in.
    pub fn start(registry: &mut Registry) -> Self {
        registry.register_collector(Box::new(Runtime { metrics: Handle::current().metrics() }));
        let lag = Histogram::new(BOUNDS);
        let help = "How late the runtime runs a task that is due.";
        registry.register("runtime_lag_seconds", help, lag.clone());
        let task = tokio::spawn(async move {
            let mut ticks = interval(PERIOD);
            // A late tick is one observation, not many.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let due = ticks.tick().await;
                lag.observe(Instant::now().saturating_duration_since(due).as_secs_f64());
            }
        });
        Self { task }
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Runtime ===

impl Collector for Runtime {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (encoder, metrics) = (&mut encoder, &self.metrics);
        let workers = metrics.num_workers();
        let busy: Duration = (0..workers).map(|w| metrics.worker_total_busy_duration(w)).sum();
        Family::new(encoder, "runtime_workers", "Threads that run tasks.").gauge(workers as u64)?;
        Family::new(encoder, "runtime_alive_tasks", "Tasks that have not ended.")
            .gauge(metrics.num_alive_tasks() as u64)?;
        Family::new(encoder, "runtime_queued_tasks", "Tasks in the runtime's global queue.")
            .gauge(metrics.global_queue_depth() as u64)?;
        Family::new(encoder, "runtime_busy_seconds", "Time that the threads ran tasks.")
            .counter(busy.as_secs_f64())
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{registry, text};

    #[tokio::test(start_paused = true)]
    async fn the_canary_measures_until_it_is_dropped() {
        let mut registry = registry();
        let canary = Canary::start(&mut registry);
        let count = |registry: &Registry| {
            let text = text(registry).unwrap();
            let line = text.lines().find(|l| l.starts_with("sleuth_runtime_lag_seconds_count"));
            line.unwrap().rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
        let seen = count(&registry);
        assert!(seen >= 9, "{seen}");
        drop(canary);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(count(&registry) <= seen + 1);
        assert!(text(&registry).unwrap().contains("sleuth_runtime_workers 1"));
    }
}
