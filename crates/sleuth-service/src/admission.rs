use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sleuth_core::{ErrorClass, Failure, Reason};
use tokio::time::Instant;

use crate::Caller;

/// How much work is taken in, for all tenants and for each.
#[derive(Clone, Debug, PartialEq)]
pub struct AdmissionSettings {
    /// Longest predicted wait at which items are taken without credit.
    pub max_wait: Duration,
    /// Device time that a tenant may bring at once beyond that, such as all rollouts of a training
    /// step. It is whole again whenever the tenant has no unfinished item.
    pub burst: Duration,
    /// What a tenant may do that is not named in `tenants`.
    pub tenant: TenantLimits,
    /// By name.
    pub tenants: HashMap<String, TenantLimits>,
}

/// What one tenant may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TenantLimits {
    /// Items without a verdict.
    pub max_items: usize,
    /// Device time it may use, as a share of one device's: 0.5 is thirty seconds a minute. `None`
    /// for as much as there is.
    pub device_share: Option<f64>,
    /// Device time it may use at once before that share counts.
    pub device_burst: Duration,
}

/// Decides, from predictions, what is taken in. Says no before anything is decoded.
///
/// Quota is what one tenant may do, capacity is what all can have; a refusal says which of the two
/// it was, and when to try again.
#[derive(Debug)]
pub(crate) struct Admission {
    settings: AdmissionSettings,
    tenants: Mutex<HashMap<Arc<str>, Tenant>>,
}

/// A tenant's unfinished item; ends when dropped.
#[derive(Debug)]
pub(crate) struct Presence {
    admission: Arc<Admission>,
    tenant: Arc<str>,
}

#[derive(Debug)]
struct Tenant {
    limits: TenantLimits,
    items: usize,
    /// Device time left beyond `max_wait`, in seconds.
    credit: f64,
    /// Device time left of the quota, in seconds; may be negative.
    device: f64,
    refilled: Instant,
}

/// Tenants that are remembered though they have no unfinished item. Beyond, those whose quota is
/// whole are forgotten.
const REMEMBERED: usize = 4096;
const SHORTEST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_mins(1);

// === impl Admission ===

impl Admission {
    pub(crate) fn new(settings: AdmissionSettings) -> Self {
        Self { settings, tenants: Mutex::default() }
    }

    /// Counts an item of a tenant, unless it has too many.
    pub(crate) fn enter(self: &Arc<Self>, caller: &Caller) -> Result<Presence, Failure> {
        let mut tenants = self.lock();
        if tenants.len() >= REMEMBERED && !tenants.contains_key(&caller.tenant) {
            let now = Instant::now();
            tenants.values_mut().for_each(|tenant| tenant.refill(now));
            tenants.retain(|_, tenant| !tenant.is_forgettable());
        }
        let tenant = tenants
            .entry(Arc::clone(&caller.tenant))
            .or_insert_with(|| Tenant::new(&self.settings, &caller.tenant));
        if tenant.items >= tenant.limits.max_items {
            let detail = format!("the tenant has {} unfinished items, the most", tenant.items);
            return Err(Failure::new(ErrorClass::Quota, Reason::TENANT_ITEMS, detail)
                .retry_after(SHORTEST_RETRY));
        }
        tenant.items += 1;
        Ok(Presence { admission: Arc::clone(self), tenant: Arc::clone(&caller.tenant) })
    }

    /// Refuses at once what has no chance, whatever it is.
    pub(crate) fn check(&self, caller: &Caller, wait: Duration) -> Result<(), Failure> {
        if wait <= self.settings.max_wait {
            return Ok(());
        }
        let has_credit = self.lock().get(&caller.tenant).is_some_and(|t| t.credit > 0.0);
        if has_credit { Ok(()) } else { Err(self.too_long(wait)) }
    }

    /// Charges an item that should take `cost` of device time, where others should take `wait`.
    pub(crate) fn charge(
        &self,
        caller: &Caller,
        cost: Duration,
        wait: Duration,
    ) -> Result<(), Failure> {
        let mut tenants = self.lock();
        let Some(tenant) = tenants.get_mut(&caller.tenant) else { return Ok(()) };
        let seconds = cost.as_secs_f64();
        tenant.refill(Instant::now());
        if let Some(after) = tenant.until_quota() {
            let detail = "the tenant has used its share of device time";
            return Err(Failure::new(ErrorClass::Quota, Reason::TENANT_DEVICE_TIME, detail)
                .retry_after(bounded(after)));
        }
        if wait > self.settings.max_wait {
            if tenant.credit < seconds {
                return Err(self.too_long(wait));
            }
            tenant.credit -= seconds;
        }
        tenant.spend(seconds);
        Ok(())
    }

    /// Charges work of an item that was let in before.
    pub(crate) fn spend(&self, caller: &Caller, cost: Duration) {
        if let Some(tenant) = self.lock().get_mut(&caller.tenant) {
            tenant.refill(Instant::now());
            tenant.spend(cost.as_secs_f64());
        }
    }

    fn too_long(&self, wait: Duration) -> Failure {
        let detail = format!("the queue is predicted to take {:.1} s", wait.as_secs_f64());
        let after = bounded(wait.saturating_sub(self.settings.max_wait));
        Failure::new(ErrorClass::Overload, Reason::WAIT_TOO_LONG, detail).retry_after(after)
    }

    /// Nothing panics while the lock is held, so a poisoned state is still whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Tenant>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bounded(after: Duration) -> Duration {
    after.clamp(SHORTEST_RETRY, LONGEST_RETRY)
}

// === impl Presence ===

impl Drop for Presence {
    fn drop(&mut self) {
        let mut tenants = self.admission.lock();
        let Some(tenant) = tenants.get_mut(&self.tenant) else { return };
        tenant.items -= 1;
        if tenant.items == 0 {
            tenant.credit = self.admission.settings.burst.as_secs_f64();
        }
    }
}

// === impl Tenant ===

impl Tenant {
    fn new(settings: &AdmissionSettings, name: &str) -> Self {
        let limits = settings.tenants.get(name).copied().unwrap_or(settings.tenant);
        Self {
            limits,
            items: 0,
            credit: settings.burst.as_secs_f64(),
            device: limits.device_burst.as_secs_f64(),
            refilled: Instant::now(),
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.refilled = now;
        let share = self.limits.device_share.unwrap_or(0.0);
        let most = self.limits.device_burst.as_secs_f64();
        self.device = (self.device + passed * share).min(most);
    }

    /// How long until the quota is positive again; `None` where it is, or there is none.
    fn until_quota(&self) -> Option<Duration> {
        let share = self.limits.device_share?;
        if self.device > 0.0 {
            return None;
        }
        let seconds = -self.device / share.max(f64::MIN_POSITIVE);
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_RETRY))
    }

    /// An item may take more than is left, which the next ones pay for: so an item that is larger
    /// than the burst runs too.
    fn spend(&mut self, seconds: f64) {
        if self.limits.device_share.is_some() {
            self.device -= seconds;
        }
    }

    fn is_forgettable(&self) -> bool {
        self.items == 0 && self.device >= self.limits.device_burst.as_secs_f64()
    }
}

// === impl AdmissionSettings ===

impl Default for AdmissionSettings {
    /// A wait of two seconds, a burst of one minute, tenants without quotas.
    fn default() -> Self {
        Self {
            max_wait: Duration::from_secs(2),
            burst: Duration::from_mins(1),
            tenant: TenantLimits::default(),
            tenants: HashMap::new(),
        }
    }
}

// === impl TenantLimits ===

impl Default for TenantLimits {
    /// As many items as the queue takes, all device time.
    fn default() -> Self {
        Self { max_items: 16_384, device_share: None, device_burst: Duration::from_mins(1) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn admission(tenant: TenantLimits) -> Arc<Admission> {
        let settings = AdmissionSettings {
            max_wait: SECOND,
            burst: 10 * SECOND,
            tenant,
            ..AdmissionSettings::default()
        };
        Arc::new(Admission::new(settings))
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_comes_in_on_credit_and_constant_overload_does_not() {
        let admission = admission(TenantLimits::default());
        let caller = Caller::new("a");
        let presence = admission.enter(&caller).unwrap();
        let (short, long) = (SECOND, 20 * SECOND);
        for _ in 0..10 {
            admission.charge(&caller, SECOND, long).unwrap();
        }
        let refused = admission.charge(&caller, SECOND, long).unwrap_err();
        assert_eq!((refused.class, refused.reason), (ErrorClass::Overload, Reason::WAIT_TOO_LONG));
        assert_eq!(refused.retry_after, Some(19 * SECOND));
        assert_eq!(admission.check(&caller, long).unwrap_err(), refused);
        tokio::time::advance(100 * SECOND).await;
        assert!(admission.charge(&caller, SECOND, long).is_err(), "it never got idle");
        assert!(admission.charge(&caller, SECOND, short).is_ok());
        drop(presence);
        let _presence = admission.enter(&caller).unwrap();
        assert!(admission.charge(&caller, SECOND, long).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenants_share_of_device_time_is_a_quota() {
        let limits = TenantLimits {
            device_share: Some(0.5),
            device_burst: 2 * SECOND,
            ..TenantLimits::default()
        };
        let admission = admission(limits);
        let caller = Caller::new("a");
        let _presence = admission.enter(&caller).unwrap();
        admission.charge(&caller, 3 * SECOND, Duration::ZERO).unwrap();
        let refused = admission.charge(&caller, SECOND, Duration::ZERO).unwrap_err();
        assert_eq!(
            (refused.class, refused.reason),
            (ErrorClass::Quota, Reason::TENANT_DEVICE_TIME)
        );
        assert_eq!(refused.retry_after, Some(2 * SECOND));
        tokio::time::advance(Duration::from_millis(2100)).await;
        assert!(admission.charge(&caller, SECOND, Duration::ZERO).is_ok());
    }

    #[test]
    fn unfinished_items_are_a_quota_per_tenant() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _guard = runtime.enter();
        let admission = admission(TenantLimits { max_items: 2, ..TenantLimits::default() });
        let (a, b) = (Caller::new("a"), Caller::new("b"));
        let held = (admission.enter(&a).unwrap(), admission.enter(&a).unwrap());
        let refused = admission.enter(&a).unwrap_err();
        assert_eq!((refused.class, refused.reason), (ErrorClass::Quota, Reason::TENANT_ITEMS));
        assert!(admission.enter(&b).is_ok());
        drop(held);
        assert!(admission.enter(&a).is_ok());
    }

    proptest! {
        #[test]
        fn over_any_time_a_tenant_gets_no_more_than_its_share_and_burst(
            steps in prop::collection::vec((1_u64..500, 0_u64..800), 1..100),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time().start_paused(true).build().unwrap();
            let (got, most) = runtime.block_on(async {
                let limits = TenantLimits {
                    device_share: Some(0.25),
                    device_burst: SECOND,
                    ..TenantLimits::default()
                };
                let admission = admission(limits);
                let caller = Caller::new("a");
                let _presence = admission.enter(&caller).unwrap();
                let (began, mut got, mut largest) = (Instant::now(), 0.0, 0.0_f64);
                for (cost, pause) in steps {
                    let cost = Duration::from_millis(cost);
                    if admission.charge(&caller, cost, Duration::ZERO).is_ok() {
                        got += cost.as_secs_f64();
                        largest = largest.max(cost.as_secs_f64());
                    }
                    tokio::time::advance(Duration::from_millis(pause)).await;
                }
                (got, 1.0 + began.elapsed().as_secs_f64() * 0.25 + largest)
            });
            prop_assert!(got <= most + 1e-6, "{got} of {most}");
        }
    }
}
