//! The server over an in-memory connection, with a scorer that does as the response says.

mod batch;
mod drain;
mod fake;
mod harness;
mod services;
mod shared_stream;
mod stream;
mod stream_bounds;
