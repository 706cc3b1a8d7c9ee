//! The router: one API before many replicas, the replicas' own.
//!
//! [`Router`] is a [`Scorer`](sleuth_service::Scorer) as a replica's service is, so that the same
//! server serves both. It keeps soft state only: images that callers put, what callers sent of
//! unfinished items, and what replicas said of themselves, all within bounds.
//!
//! Invariants
//! - An item goes where its prefix is held, unless that costs more than computing it elsewhere.
//! - One version scores a group, and an item.
//! - An item whose replica dies, freezes or is cut off goes elsewhere, with the same key; rewards
//!   that were delivered are not delivered again.
//! - Being busy is no fault: only faults keep items from a replica.

mod asked;
mod correct;
mod dial;
pub mod discovery;
mod failures;
mod fleet;
mod follow;
pub mod health;
mod judge;
mod metrics;
mod open;
pub mod placement;
mod replica;
pub mod retry_budget;
mod router;
mod settings;
pub mod simulate;
mod view;
mod whole;

pub use dial::Dial;
pub use judge::Cause;
pub use metrics::{RouterMetrics, replicas_page};
pub use router::Router;
pub use settings::RouterSettings;
pub use view::{Counts, FleetView, ReplicaCounts, ReplicaView};
