//! A client of Sleuth.
//!
//! [`Client::score`] sends items over one shared stream, many at once, and hands each caller its
//! own result; [`Client::score_batch`] sends a list in one call. Clones share the connection and
//! the stream.
//!
//! Nothing is retried here: [`ClientError::is_retryable`] says what may be.

mod client;
mod error;
mod link;
mod settings;

pub use client::Client;
pub use error::ClientError;
pub use settings::ClientSettings;
pub use sleuth_wire::{Refusal, Unreadable};
