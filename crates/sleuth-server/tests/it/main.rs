//! The server over an in-memory connection, with a scorer that does as the response says.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the tests' own harness fails like a test"
)]

mod batch;
mod correct;
mod drain;
mod fake;
mod harness;
mod images;
mod open;
mod services;
mod shared_stream;
mod stream;
mod stream_bounds;
