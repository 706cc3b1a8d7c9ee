//! How much may be tried again: retries help while few replicas fail, and finish off a fleet that
//! is overloaded.

use std::time::Duration;

/// Bounds of retries. Negative numbers count as 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudgetSettings {
    /// Retries that each item adds.
    pub per_item: f64,
    /// Retries that each second adds, so that a router with few items can retry too.
    pub per_second: f64,
    /// Retries that may be saved up.
    pub most: f64,
}

/// A token bucket. Without clock; times never go back.
///
/// Never more retries than `most`, plus `per_item` times the items, plus `per_second` times the
/// seconds.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    settings: RetryBudgetSettings,
    tokens: f64,
    filled: Duration,
}

// === impl RetryBudgetSettings ===

impl Default for RetryBudgetSettings {
    fn default() -> Self {
        Self { per_item: 0.2, per_second: 10.0, most: 100.0 }
    }
}

// === impl RetryBudget ===

impl RetryBudget {
    /// Starts full.
    pub fn new(settings: RetryBudgetSettings, now: Duration) -> Self {
        Self { settings, tokens: settings.most.max(0.0), filled: now }
    }

    /// An item came in, not a retry.
    pub fn deposit(&mut self) {
        self.add(self.settings.per_item);
    }

    /// Takes one retry; false where there is none.
    #[must_use]
    pub fn withdraw(&mut self, now: Duration) -> bool {
        let elapsed = now.saturating_sub(self.filled);
        self.filled = self.filled.max(now);
        self.add(self.settings.per_second * elapsed.as_secs_f64());
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }

    fn add(&mut self, tokens: f64) {
        self.tokens = (self.tokens + tokens.max(0.0)).min(self.settings.most.max(0.0));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn retries_are_a_fifth_of_items_once_savings_are_gone() {
        let settings = RetryBudgetSettings { per_second: 0.0, ..RetryBudgetSettings::default() };
        let mut budget = RetryBudget::new(settings, Duration::ZERO);
        let spent = (0..1000).filter(|_| budget.withdraw(Duration::ZERO)).count();
        assert_eq!(spent, 100);
        let mut granted = 0;
        for _ in 0..1000 {
            budget.deposit();
            granted += u32::from(budget.withdraw(Duration::ZERO));
        }
        assert!((199..=200).contains(&granted), "{granted}");
    }

    #[test]
    fn a_quiet_router_gets_ten_a_second() {
        let mut budget = RetryBudget::new(RetryBudgetSettings::default(), Duration::ZERO);
        while budget.withdraw(Duration::ZERO) {}
        let second = Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| budget.withdraw(second)).count(), 10);
    }

    proptest! {
        #[test]
        fn never_more_than_the_bound(steps in prop::collection::vec((any::<bool>(), 0u64..500), 0..300)) {
            let settings = RetryBudgetSettings::default();
            let mut budget = RetryBudget::new(settings, Duration::ZERO);
            let (mut now, mut items, mut granted) = (Duration::ZERO, 0.0, 0.0);
            for (is_item, millis) in steps {
                now += Duration::from_millis(millis);
                if is_item {
                    items += 1.0;
                    budget.deposit();
                } else if budget.withdraw(now) {
                    granted += 1.0;
                }
                let bound = settings.most + settings.per_item * items + settings.per_second * now.as_secs_f64();
                prop_assert!(granted <= bound + 1e-6);
            }
        }
    }
}
