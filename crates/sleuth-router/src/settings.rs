use std::time::Duration;

use sleuth_client::{ClientSettings, RetrySettings, Security};

use crate::health::HealthSettings;
use crate::placement::PlacementSettings;
use crate::retry_budget::RetryBudgetSettings;

/// How a router treats its replicas.
#[derive(Clone, Debug)]
pub struct RouterSettings {
    /// Where items go.
    pub placement: PlacementSettings,
    /// When a replica is left out for a while.
    pub health: HealthSettings,
    /// Share of replicas that are left out for their faults at a time, 0 to 1.
    pub max_ejected: f64,
    /// How much is tried again.
    pub retries: RetryBudgetSettings,
    /// Attempts at an item, the first included.
    pub max_attempts: u32,
    /// How the router knows its replicas, and is known by them.
    pub security: Security,
    /// Least time between a replica's reports, 10 ms to 10 s.
    pub report_interval: Duration,
    /// A replica that reports nothing for so long is lost: what it has goes elsewhere.
    pub silence: Duration,
    /// How long an item waits where no replica takes items.
    pub patience: Duration,
    /// Longest time that an item may take.
    pub max_timeout: Duration,
    /// Bytes of images that callers put.
    pub image_store_bytes: u64,
    /// Bytes of one image at most.
    pub max_image_bytes: u64,
}

// === impl RouterSettings ===

impl RouterSettings {
    /// For connections to replicas. Nothing is tried again there: the router does that.
    pub fn client(&self) -> ClientSettings {
        ClientSettings {
            // Of a stream's queue of messages.
            max_in_flight: 1024,
            retry: RetrySettings::NEVER,
            connect_timeout: self.silence,
            keepalive_interval: self.silence,
            keepalive_timeout: self.silence,
            kept_image_bytes: 0,
            ..ClientSettings::default()
        }
    }
}

impl Default for RouterSettings {
    fn default() -> Self {
        Self {
            placement: PlacementSettings::default(),
            health: HealthSettings::default(),
            max_ejected: 0.5,
            retries: RetryBudgetSettings::default(),
            max_attempts: 4,
            security: Security::default(),
            report_interval: Duration::from_millis(50),
            silence: Duration::from_secs(3),
            patience: Duration::from_secs(10),
            max_timeout: Duration::from_mins(5),
            image_store_bytes: 512 << 20,
            max_image_bytes: 32 << 20,
        }
    }
}
