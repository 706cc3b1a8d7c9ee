//! Which replicas take items: one that fails is left out for a while and comes back by and by.
//!
//! Without clock. Times are durations since any fixed start and never go back.

use std::time::Duration;

/// When a replica is left out, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HealthSettings {
    /// Faults in a row after which it is left out. At least 1.
    pub consecutive: u32,
    /// As `consecutive`, while it comes back.
    pub consecutive_returning: u32,
    /// Share of faults over `window` from which it is left out, 0..=1.
    pub fault_share: f64,
    /// Successes and faults that `window` must hold for their share to count.
    pub least_outcomes: u32,
    /// How long outcomes count.
    pub window: Duration,
    /// How long it is left out first; twice as long each time again.
    pub base: Duration,
    /// How long at most. After so long without being left out, it starts from `base` again.
    pub most: Duration,
    /// How long it takes to come back.
    pub recovery: Duration,
}

/// How an item ended, as far as it tells of the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Good,
    /// The connection was lost, the model failed, or nothing came until the deadline.
    Fault,
    /// It refuses, by overload, draining or quota: no fault and no success.
    Busy,
}

/// The health of one replica.
#[derive(Clone, Debug)]
pub struct Health {
    settings: HealthSettings,
    in_a_row: u32,
    /// Of each slice of the window: its number, successes and faults.
    slices: [(u64, u32, u32); SLICES],
    /// When it comes back or came back, if it ever was left out.
    until: Option<Duration>,
    /// How often it was left out in a row.
    level: u32,
    ejections: u64,
}

/// Parts that the window is counted in.
const SLICES: usize = 8;
/// What a replica gets that has just come back, or that would be left out were there others.
const LEAST_WEIGHT: f64 = 0.05;

// === impl HealthSettings ===

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            consecutive: 5,
            consecutive_returning: 2,
            fault_share: 0.5,
            least_outcomes: 20,
            window: Duration::from_secs(30),
            base: Duration::from_secs(5),
            most: Duration::from_mins(5),
            recovery: Duration::from_secs(10),
        }
    }
}

// === impl Health ===

impl Health {
    /// Takes the whole share.
    pub fn new(settings: HealthSettings) -> Self {
        Self {
            settings,
            in_a_row: 0,
            slices: [(0, 0, 0); SLICES],
            until: None,
            level: 0,
            ejections: 0,
        }
    }

    /// Takes note of how an item ended. True if the replica is left out from now on.
    pub fn outcome(&mut self, now: Duration, outcome: Outcome) -> bool {
        // What was sent before says nothing new.
        if outcome == Outcome::Busy || self.is_ejected(now) {
            return false;
        }
        let number = self.number(now);
        let slice = &mut self.slices[number as usize % SLICES];
        if slice.0 != number {
            *slice = (number, 0, 0);
        }
        if outcome == Outcome::Good {
            self.in_a_row = 0;
            slice.1 = slice.1.saturating_add(1);
            return false;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        slice.2 = slice.2.saturating_add(1);
        let is_failing =
            self.in_a_row >= self.allowed(now).max(1) || self.has_failing_share(number);
        if is_failing {
            self.eject(now);
        }
        is_failing
    }

    /// The share of its items that it should get: 0 while it is left out, then growing to 1.
    pub fn weight(&self, now: Duration) -> f64 {
        let Some(until) = self.until else { return 1.0 };
        if now < until {
            return 0.0;
        }
        let returned =
            now.saturating_sub(until).as_secs_f64() / self.settings.recovery.as_secs_f64();
        // Without a recovery time this divides by 0.
        if returned.is_nan() { 1.0 } else { returned.clamp(LEAST_WEIGHT, 1.0) }
    }

    /// True while it is left out.
    pub fn is_ejected(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// How often it was left out.
    pub fn ejections(&self) -> u64 {
        self.ejections
    }

    fn eject(&mut self, now: Duration) {
        let HealthSettings { base, most, .. } = self.settings;
        let is_forgiven = self.until.is_none_or(|until| now.saturating_sub(until) > most);
        self.level = if is_forgiven { 0 } else { self.level.saturating_add(1) };
        let factor = 1u32.checked_shl(self.level).unwrap_or(u32::MAX);
        self.until = Some(now.saturating_add(base.saturating_mul(factor).min(most)));
        self.ejections += 1;
        self.in_a_row = 0;
        self.slices = [(0, 0, 0); SLICES];
    }

    fn allowed(&self, now: Duration) -> u32 {
        let HealthSettings { consecutive, consecutive_returning, .. } = self.settings;
        if self.weight(now) < 1.0 { consecutive.min(consecutive_returning) } else { consecutive }
    }

    fn has_failing_share(&self, number: u64) -> bool {
        let recent =
            self.slices.iter().filter(|slice| number - slice.0.min(number) < SLICES as u64);
        let (good, faults) = recent.fold((0, 0), |(good, faults), slice| {
            (good + u64::from(slice.1), faults + u64::from(slice.2))
        });
        let all = good + faults;
        all >= u64::from(self.settings.least_outcomes)
            && faults as f64 >= self.settings.fault_share * all as f64
    }

    /// Which slice of time it is.
    fn number(&self, now: Duration) -> u64 {
        let slice = (self.settings.window / SLICES as u32).max(Duration::from_millis(1));
        (now.as_millis() / slice.as_millis()) as u64
    }
}

/// The weights of a fleet, of which at most the share `most` (0..=1) is left out at a time: were
/// all to fail, the cause is more likely elsewhere, and nobody would be left. The others keep a
/// small weight, first those that come back first.
pub fn weights(fleet: &[&Health], most: f64, now: Duration) -> Vec<f64> {
    let mut weights: Vec<f64> = fleet.iter().map(|health| health.weight(now)).collect();
    let mut ejected: Vec<usize> = (0..fleet.len()).filter(|&i| weights[i] <= 0.0).collect();
    let allowed = (fleet.len() as f64 * most.max(0.0)).floor() as usize;
    ejected.sort_by_key(|&i| (fleet[i].until, i));
    let kept = ejected.len().saturating_sub(allowed);
    for &i in &ejected[..kept] {
        weights[i] = LEAST_WEIGHT;
    }
    weights
}

#[cfg(test)]
mod tests;
