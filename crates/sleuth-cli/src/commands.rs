mod admin;
mod bench;
mod config;
mod correct;
mod edge;
mod eval;
mod inspect;
mod jsonl;
mod lines;
mod merge;
mod perturb;
mod probe;
mod route;
mod scenes;
mod score;
mod serve;
mod token;
mod top;
mod train;

use std::process::ExitCode;

use anyhow::Result;
use tokio::runtime::{Builder, Runtime};

use crate::arguments::{Arguments, Command};

/// Runs the command and says how the process ends.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.command {
        Command::Score(arguments) => score::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Route(arguments) => route::run(&arguments),
        Command::Correct(arguments) => correct::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Scenes(arguments) => scenes::run(&arguments),
        Command::Perturb(arguments) => perturb::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Merge(arguments) => merge::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
        Command::Admin(arguments) => admin::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments),
        Command::Token(arguments) => token::run(&arguments),
    }
}

/// A small runtime: the forward pass never runs on it.
fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
