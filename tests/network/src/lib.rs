//! The router over a network that is simulated: only tests.
