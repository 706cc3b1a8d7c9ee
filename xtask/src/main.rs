//! Project tasks: `cargo xtask <task>`.
//!
//! - `codegen` writes the code generated from `proto/`; `codegen --check` fails where the
//!   committed code is another.
//! - `floors` checks which crate depends on which.
//! - `deny` checks licences, bans, doubled versions and sources of all dependencies.
//! - `fuzz [--seconds N] [--target NAME]… [--corpus-only]` runs the targets of `fuzz/` from its
//!   corpus, 60 seconds each, or the corpus only; fails on a finding.
//! - `cuda-check` type-checks the code behind the feature `cuda`; no GPU is needed, but a Python that
//!   can install packages, and ten minutes the first time.
//! - `gpu-check [MODEL INPUTS]` holds this machine's GPUs to the golden files and measures them.
//! - `ci` runs what a commit must pass: formatting, lints, the checks above, and all tests.

mod codegen;
mod cuda;
mod deny;
mod floors;
mod fuzz;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};

const USAGE: &str = "usage: cargo xtask codegen [--check] | floors | deny | cuda-check | gpu-check [MODEL INPUTS] | \
    ci | \
    fuzz [--seconds N] [--target NAME]... [--corpus-only]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(message) => {
            say(&message);
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<String> {
    let root = workspace_root()?;
    match args {
        ["codegen"] => codegen::write(&root),
        ["codegen", "--check"] => codegen::check(&root),
        ["floors"] => floors::check(&root),
        ["deny"] => deny::check(&root),
        ["cuda-check"] => cuda::check(&root),
        ["gpu-check", bench @ ..] => cuda::gpu_check(&root, bench),
        ["ci"] => ci(&root),
        ["fuzz", args @ ..] => fuzz::run(&root, args),
        _ => bail!("{USAGE}"),
    }
}

fn ci(root: &Path) -> Result<String> {
    cargo(root, &["fmt", "--all", "--check"])?;
    codegen::check(root)?;
    floors::check(root)?;
    deny::check(root)?;
    cargo(root, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    cargo(root, &["test", "--workspace"])?;
    Ok("all checks passed".to_owned())
}

fn cargo(root: &Path, args: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).current_dir(root).args(args).status()?;
    ensure!(status.success(), "cargo {} failed", args.join(" "));
    Ok(())
}

fn workspace_root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask lies in the workspace")?.to_path_buf())
}

#[expect(clippy::print_stdout, reason = "a command line tool speaks on stdout")]
fn say(message: &str) {
    println!("{message}");
}

#[expect(clippy::print_stderr, reason = "a command line tool complains on stderr")]
fn complain(message: &str) {
    eprintln!("{message}");
}
