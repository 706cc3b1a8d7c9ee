//! Benchmarks against reference implementations.
