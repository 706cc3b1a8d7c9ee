//! End to end: the `sleuth` binary as people and programs meet it, with the trained model.

mod bad_input;
mod command;
mod inspect;
mod jsonl;
mod lab;
mod score;
mod serve;
