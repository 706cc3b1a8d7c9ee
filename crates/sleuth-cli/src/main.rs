//! The `sleuth` binary.
fn main() {}
