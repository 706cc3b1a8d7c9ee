//! The gRPC edge of a replica: from connections to [`Scorer`](sleuth_service::Scorer) and back.
//!
//! [`Server::bind`] takes an address, [`BoundServer::run`] serves until told to stop and then
//! drains. [`serve`] does the same over any stream of connections.
//!
//! Promises
//! - Exactly one verdict per item; a failure is never a reward of 0.
//! - An item that decodes never ends its stream, and a panic ends only its own item.
//! - Bytes of unfinished items, items per stream and unread replies are bounded; whoever does not
//!   read is not read from.
//! - Logs hold ids and outcomes, never prompts, responses or images.

mod admission;
mod batch;
mod deadline;
mod error;
mod images;
mod lifecycle;
mod metrics;
mod observe;
mod reward;
mod scoring;
mod server;
mod session;
mod settings;
mod unoffered;

pub use error::ServeError;
pub use lifecycle::Drained;
pub use metrics::{Baseline, Metrics, metrics_router, serve_metrics};
pub use observe::Observer;
pub use server::{BoundServer, Server, serve};
pub use settings::{ConnectionSettings, ServerSettings, StreamSettings};
