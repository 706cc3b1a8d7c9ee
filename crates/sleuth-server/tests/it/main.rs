//! The server over an in-memory connection, with a scorer that does as the response says.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the tests' own harness fails like a test"
)]

mod auth;
mod batch;
mod certificates;
mod connections;
mod correct;
mod drain;
mod fake;
mod harness;
mod images;
mod loading;
mod open;
mod running;
mod services;
mod shared_stream;
mod stream;
mod stream_bounds;
mod tls;
mod traces;
