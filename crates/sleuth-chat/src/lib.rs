//! A client of OpenAI-compatible chat completions (`POST {base}/chat/completions`): bounded in time,
//! in bytes and in attempts, paced, and silent about its key.

mod client;
mod completion;
mod endpoint;
mod error;
mod pace;
#[cfg(feature = "scripted")]
pub mod scripted;

pub use client::ChatClient;
pub use completion::{Completion, DataUrl, Message, Request, Role, Usage};
pub use endpoint::{ApiKey, BadEndpoint, Endpoint, Limits};
pub use error::ChatError;
pub use pace::Pace;
