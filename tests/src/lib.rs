//! End-to-end tests of the `sleuth` binary live in `it/`.
