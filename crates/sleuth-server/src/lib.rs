//! The gRPC edge of a replica: from connections to [`Scorer`](sleuth_service::Scorer) and back.
//!
//! [`Server::bind`] takes an address, [`BoundServer::run`] loads, serves until told to stop and
//! then drains. [`serve`] does the same over any stream of connections. [`AdminPort`] answers
//! probes beside it.
//!
//! Promises
//! - Exactly one verdict per item; a failure is never a reward of 0.
//! - An item that decodes never ends its stream, and a panic ends only its own item.
//! - Bytes of unfinished items, items per stream and unread replies are bounded; whoever does not
//!   read is not read from.
//! - Connections, handshakes, calls, headers and messages are bounded in number, bytes and time.
//! - Where credentials are set, no call but health is answered without them; tokens are known by
//!   their digests alone.
//! - Logs hold ids and outcomes, never prompts, responses or images.

mod admin;
mod admission;
mod arriving;
mod auth;
mod batch;
mod deadline;
mod error;
mod gate;
mod http;
mod images;
mod lifecycle;
mod listener;
mod metrics;
mod observe;
mod port;
mod reload;
mod replica;
mod reward;
mod scoring;
mod server;
mod session;
mod settings;
mod tls;
mod unoffered;

pub use admin::ReplaceFilter;
pub use auth::{NewToken, Role, is_caller_name};
pub use error::{SecurityError, ServeError};
pub use lifecycle::Drained;
pub use metrics::{Baseline, Metrics, metrics_router};
pub use observe::Observer;
pub use port::{AdminPort, Doing, Pages, Stage};
pub use reload::Reloader;
pub use server::{BoundServer, Hooks, Server, serve};
pub use settings::{ConnectionSettings, HttpSettings, ServerSettings, StreamSettings};
pub use tls::TlsSettings;
