//! Replicas by the addresses of a DNS name.

mod memory;
mod resolver;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::jitter::Jitter;
use super::members::Members;
use super::{DiscoverySettings, DnsSettings, Endpoint, MAX_ENDPOINTS};
use memory::Memory;
use resolver::SystemResolver;

/// How long one look may take, all servers and attempts together.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// The bounds that no setting passes.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// A name's addresses, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    addresses: Vec<IpAddr>,
    /// How long they may be taken for true.
    ttl: Duration,
}

/// Asks for a name's addresses. No addresses are an error too; its text says why.
trait Resolve: Send {
    fn resolve(&mut self, host: &str) -> impl Future<Output = Result<Answer, String>> + Send;
}

/// What is known of a name, and for how long without a good answer.
struct Known<'a> {
    memory: Memory,
    /// When the last known endpoints have been kept long enough; set by the first failed look.
    expiry: Option<Instant>,
    dns: &'a DnsSettings,
    grace: Duration,
    members: Members,
}

/// When to look again.
#[derive(Debug)]
struct Pace {
    min: Duration,
    max: Duration,
    /// Looks that failed since the last good one.
    failed: u32,
}

/// Looks again and again; never ends.
pub(super) async fn follow(dns: DnsSettings, settings: DiscoverySettings, members: Members) {
    let resolver = SystemResolver::new(dns.servers.clone());
    follow_with(resolver, dns, settings, members).await;
}

async fn follow_with(
    mut resolver: impl Resolve,
    dns: DnsSettings,
    settings: DiscoverySettings,
    members: Members,
) {
    let mut pace = Pace::new(&dns);
    let mut jitter = Jitter::default();
    let mut known = Known {
        memory: Memory::new(settings.misses),
        expiry: None,
        dns: &dns,
        grace: settings.grace,
        members,
    };
    loop {
        let pause = match known.meanwhile(look(&mut resolver, &dns.host)).await {
            Ok(answer) => {
                let ttl = answer.ttl;
                let missing = known.heard(answer);
                pace.after_answer(ttl, missing)
            }
            Err(fault) => {
                known.failed(&fault);
                pace.after_failure()
            }
        };
        known.meanwhile(sleep(jittered(pause, jitter.next()))).await;
    }
}

async fn look(resolver: &mut impl Resolve, host: &str) -> Result<Answer, String> {
    match timeout(LOOK_TIMEOUT, resolver.resolve(host)).await {
        Ok(Ok(answer)) if answer.addresses.is_empty() => Err("no addresses".to_owned()),
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {LOOK_TIMEOUT:?}")),
    }
}

/// 0.9 to 1.1 of a pause, so that routers that started together do not ask together; not under
/// the shortest. `at` is 0 to 1.
fn jittered(pause: Duration, at: f64) -> Duration {
    pause.mul_f64(0.9 + 0.2 * at.clamp(0.0, 1.0)).max(SHORTEST)
}

// === impl Known ===

impl Known<'_> {
    /// Whether an endpoint that is still known was missing.
    fn heard(&mut self, answer: Answer) -> bool {
        self.expiry = None;
        let missing = self.memory.heard(answer.addresses);
        let at = |ip| Endpoint::at(self.dns.scheme, SocketAddr::new(ip, self.dns.port));
        // One over the bound, so that its passing is noticed.
        self.members.found(self.memory.addresses().take(MAX_ENDPOINTS + 1).map(at), None);
        missing
    }

    fn failed(&mut self, fault: &str) {
        // `None` again where the grace is for ever.
        self.expiry = self.expiry.or_else(|| Instant::now().checked_add(self.grace));
        self.members.failed(format!("{}: {fault}", self.dns.host));
    }

    /// Waits for something, and lets the endpoints expire meanwhile.
    async fn meanwhile<T>(&mut self, waited: impl Future<Output = T>) -> T {
        let mut waited = pin!(waited);
        while let Some(expiry) = self.expiry.filter(|_| !self.memory.is_empty()) {
            tokio::select! {
                done = &mut waited => return done,
                () = sleep_until(expiry) => {
                    self.memory.forget();
                    let (host, grace) = (&self.dns.host, self.grace);
                    self.members.expired(format!("{host}: no good answer for {grace:?}"));
                }
            }
        }
        waited.await
    }
}

// === impl Pace ===

impl Pace {
    fn new(dns: &DnsSettings) -> Self {
        let min = dns.min_interval.clamp(SHORTEST, LONGEST);
        Self { min, max: dns.max_interval.clamp(min, LONGEST), failed: 0 }
    }

    /// With something missing the next look comes soon, for it is what decides.
    fn after_answer(&mut self, ttl: Duration, missing: bool) -> Duration {
        self.failed = 0;
        if missing { self.min } else { ttl.clamp(self.min, self.max) }
    }

    /// Doubled for each one.
    fn after_failure(&mut self) -> Duration {
        let pause = self.min.saturating_mul(1 << self.failed.min(8));
        self.failed = self.failed.saturating_add(1);
        pause.min(self.max)
    }
}
