mod cache_aware;
mod consistent;
mod counted;
mod sleuth;

pub use cache_aware::{CacheAware, OnMiss};
pub use consistent::ConsistentHashing;
pub use counted::{LeastRequests, PowerOfTwo, RoundRobin};
pub use sleuth::Sleuth;

/// Requests that are out per replica: what most routers take for load.
#[derive(Clone, Debug, Default)]
struct Requests(Vec<usize>);

// === impl Requests ===

impl Requests {
    fn new(replicas: usize) -> Self {
        Self(vec![0; replicas])
    }

    /// The first of those with the fewest.
    fn least(&self) -> usize {
        (0..self.0.len()).min_by_key(|&replica| self.0[replica]).unwrap_or(0)
    }

    fn placed(&mut self, replica: usize) -> usize {
        self.0[replica] += 1;
        replica
    }

    fn ended(&mut self, replica: usize) {
        self.0[replica] -= 1;
    }
}
