//! A client of Sleuth.
//!
//! [`Client::score`] sends items over one shared stream, many at once, and hands each caller its
//! own result; [`Client::score_batch`] sends a list in one call. Clones share the connection and
//! the stream.
//!
//! [`Operator`] exchanges the versions of a running server. [`Client::correct`] corrects an item over a stream of its own and tells what happens.
//! [`Client::open`] sends a response as it is generated. What may succeed later is tried again, as
//! [`RetrySettings`] says; idempotency keys see to it that nothing is scored twice.

mod client;
mod correct;
mod error;
mod images;
mod link;
mod load;
mod open;
mod operator;
mod security;
mod settings;

pub use client::Client;
pub use correct::Correcting;
pub use error::ClientError;
pub use load::Loads;
pub use open::{Event, OpenItem};
pub use operator::{LoadedAdapter, LoadedWeights, Operator};
pub use security::{ClientCertificate, Security, TENANT_HEADER};
pub use settings::{ClientSettings, RetrySettings};
pub use sleuth_wire::{CorrectReply, Finished, Refusal, Unreadable, Used};
