//! End to end: the `sleuth` binary as people and programs meet it, with the trained model.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail as tests do"
)]

mod bad_input;
#[path = "../../crates/sleuth-server/tests/it/certificates.rs"]
mod certificates;
mod command;
mod correct;
mod faults;
mod generate;
mod http;
mod inspect;
mod jsonl;
mod lab;
mod lifecycle;
mod metrics;
mod mllama;
mod pairs;
mod perturb;
mod proxy;
mod route;
mod score;
mod secure;
mod serve;
mod server;
mod streams;
mod swap;
mod traces;
