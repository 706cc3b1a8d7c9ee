//! Replays training steps over many simulated replicas, with any way to place items: what
//! placement is worth, before there are devices to measure it on.
//!
//! Deterministic: a workload, a policy's seed and a cost model give the same numbers anywhere.
//! Left out: the network, a second router, and errors of the cost model.

mod bound;
mod device;
mod outcome;
mod policies;
mod policy;
mod random;
mod replay;
mod workload;
mod workloads;

pub use outcome::Outcome;
pub use policies::{
    CacheAware, ConsistentHashing, LeastRequests, OnMiss, PowerOfTwo, RoundRobin, Sleuth,
};
pub use policy::{Load, Policy};
pub use random::Random;
pub use replay::run;
pub use workload::{Arrival, DeviceCost, DeviceLimits, Workload};
pub use workloads::{Shape, workloads};

/// Every policy that is compared, ours last.
pub fn policies(seed: u64) -> Vec<Box<dyn Policy>> {
    vec![
        Box::new(RoundRobin::default()),
        Box::new(LeastRequests::default()),
        Box::new(PowerOfTwo::new(seed)),
        Box::new(ConsistentHashing::new(None)),
        Box::new(ConsistentHashing::new(Some(1.25))),
        Box::new(CacheAware::new(OnMiss::SmallestTree)),
        Box::new(CacheAware::new(OnMiss::LeastRequests)),
        Box::new(Sleuth::default()),
    ]
}

#[cfg(test)]
mod tests;
