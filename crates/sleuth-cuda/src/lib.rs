//! Many CUDA devices in one process: what there is, what goes where, how keys and values move
//! between them, and what happens when one fails. Free of candle and of an async runtime.
//!
//! Everything goes through libcuda, by cudarc, behind the feature `cuda`. Without the feature the
//! same API finds no device and says why.
//!
//! - [`discover`] asks what devices there are and tries each; [`place`] decides, pure, who gets a
//!   replica.
//! - [`Pool`] gives every device an owner: one thread on which all its calls are made, with a queue
//!   of jobs.
//! - [`Segment`]s are immutable device memory within a [`Budget`]; [`Transfer`] copies them, and
//!   memory that others hold ([`DeviceSlice`]), between devices.
//! - [`Sharing`] knows which devices hold what, and copies once for all who ask; [`Directory`] is
//!   its mind, pure.
//! - A [`Fault`] says what failed and what that means. A device that is lost goes out of service,
//!   its jobs come back to their callers, and the others go on.
//!
//! Invariants
//! - All calls for a device are made on its owner's thread, in its primary context, on one stream.
//!   Memory is freed there too, whoever lets go of it.
//! - Every call is waited for where it is made: nothing of a copy is left when it has returned, so
//!   no buffer is reused too early.
//! - Owners never wait for each other, nor for a lock that somebody holds while waiting for an
//!   owner.
//! - Having no room is no fault: it is refused with numbers, and nothing has changed.
//! - A job is done once, or comes back; a device that was lost does nothing more.
//! - What arrived with other bytes than were sent is used by nobody, where segments are verified.
//!
//! From devices to a pool:
//!
//! ```
//! use sleuth_cuda::{MemoryShare, Pool, PoolSettings, ReplicaNeed, Wanted, discover, place};
//!
//! let discovery = discover();
//! let need = ReplicaNeed { weights: 10 << 30, workspace: 1 << 30, smallest_cache: 1 << 29 };
//! let share = MemoryShare::new(0.9)?;
//! let plan = place(&discovery.candidates(), share, &need, Wanted::AsManyAsFit, None)?;
//! let ordinals: Vec<u32> = plan.replicas.iter().map(|replica| replica.ordinal).collect();
//! let pool = Pool::open(&discovery, &ordinals, PoolSettings::default());
//! for replica in &plan.replicas {
//!     if let Some(device) = pool.device(replica.ordinal) {
//!         device.cap(replica.cache_bytes);
//!         let loaded = device.run(|owner| owner.memory()).wait()?;
//!         assert!(loaded.is_ok());
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What libcuda alone cannot tell is not told: corrected errors, temperature and throttling are
//! NVML's.

mod budget;
mod capability;
mod device;
mod directory;
mod discovery;
mod driver;
mod fault;
mod health;
mod job;
mod listing;
mod mailbox;
mod oneshot;
mod owner;
mod peers;
mod placement;
mod pool;
mod report;
mod segment;
mod sharing;
mod transfer;

pub use budget::{BadShare, Budget, BudgetUse, Exhausted, GRANULE, MemoryShare};
pub use capability::{ComputeCapability, Kernels};
pub use device::{Device, ReserveError};
pub use directory::{Directory, FlightId, Forgotten, Landed, Retry, Want};
pub use discovery::{
    DeviceFacts, DeviceUuid, Discovery, Driver, DriverVersion, Fitness, NoDriver, OLDEST_DRIVER,
    UnfitReason, discover,
};
pub use driver::{DeviceSlice, DeviceSliceMut};
pub use fault::{Fault, FaultClass};
pub use health::{Health, HealthListener};
pub use job::{Job, Pending, QueueFull, Unfinished};
pub use listing::{LeftOut, ListedDevice, ListedReplica, Listing};
pub use owner::Owner;
pub use peers::PeerMatrix;
pub use placement::{BadList, Candidate, Placed, Plan, ReplicaNeed, Wanted, Why, place};
pub use pool::{Pool, PoolSettings};
pub use report::report;
pub use segment::{Key, Reservation, Segment, StoreError};
pub use sharing::{Copied, Copier, ObtainError, Sharing, SharingStats};
pub use transfer::{Route, Transfer, TransferError, TransferStats};
