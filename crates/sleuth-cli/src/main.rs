//! The `sleuth` binary: parse, compose, run, exit code.

mod arguments;
mod baseline;
mod commands;
mod compose;
mod connect;
mod environment;
mod items;
mod memory;
mod output;
mod settings;
mod top;
mod versions;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;

/// Threads that pass buffers to each other hold up each other in the system's allocator: under
/// load two threads spent a third of their time in its locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    environment::limit_candle_threads();
    environment::keep_freed_memory();
    let arguments = Arguments::parse();
    match commands::run(arguments) {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}
