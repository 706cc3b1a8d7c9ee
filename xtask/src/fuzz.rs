//! Fuzzing on stable Rust: libFuzzer, with the coverage counters that the compiler itself can add.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// A folder of `fuzz/corpus` and a binary of `fuzz/`, with the longest input that makes sense.
const TARGETS: [(&str, u32); 7] = [
    ("data_lines", 4096),
    ("image_decode", 8192),
    ("realignment", 1024),
    ("response_text", 1024),
    ("settlement", 512),
    ("tokenizer_json", 16384),
    ("wire", 2048),
];

/// What `cargo fuzz` passes too where it uses no sanitizer.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cdebug-assertions=y -Ccodegen-units=1";

/// What to run.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    targets: Vec<(&'static str, u32)>,
    /// For each target; none runs what is saved once.
    seconds: Option<u32>,
}

/// Where everything lies.
struct Places {
    saved: PathBuf,
    found: PathBuf,
    artifacts: PathBuf,
    binaries: PathBuf,
    logs: PathBuf,
}

/// Builds all targets and runs those asked for, one after the other; fails where one had a finding.
pub(crate) fn run(root: &Path, args: &[&str]) -> Result<String> {
    let plan = Plan::parse(args)?;
    let fuzz = root.join("fuzz");
    let places = build(&fuzz)?;
    let mut failed = Vec::new();
    for &(name, max_len) in &plan.targets {
        let line = places.run(name, max_len, plan.seconds)?;
        crate::say(&line.text);
        if !line.clean {
            failed.push(name);
        }
    }
    ensure!(failed.is_empty(), "findings of {}; inputs in fuzz/artifacts", failed.join(", "));
    Ok(format!("{} targets, no finding", plan.targets.len()))
}

/// In a target folder of its own: with a target triple, build scripts have no counters.
fn build(fuzz: &Path) -> Result<Places> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let triple = host(&cargo)?;
    let target = fuzz.join("target");
    let status = Command::new(&cargo)
        .current_dir(fuzz)
        .env("RUSTFLAGS", RUSTFLAGS)
        .args(["build", "--release", "--bins", "--target", &triple, "--target-dir"])
        .arg(&target)
        .status()?;
    ensure!(status.success(), "the targets do not build");
    Ok(Places {
        saved: fuzz.join("corpus"),
        found: target.join("corpus"),
        artifacts: fuzz.join("artifacts"),
        binaries: target.join(triple).join("release"),
        logs: target.join("logs"),
    })
}

fn host(cargo: &OsString) -> Result<String> {
    let output = Command::new(cargo).arg("-vV").output().context("run cargo -vV")?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("cargo -vV names no host")?.to_owned())
}

/// What became of one target.
struct Line {
    text: String,
    clean: bool,
}

// === impl Plan ===

impl Plan {
    fn parse(args: &[&str]) -> Result<Self> {
        let (mut targets, mut seconds) = (Vec::new(), Some(60));
        let mut args = args.iter();
        while let Some(&arg) = args.next() {
            let mut value = || args.next().copied().with_context(|| format!("{arg} needs a value"));
            match arg {
                "--corpus-only" => seconds = None,
                "--seconds" => seconds = Some(value()?.parse().context("--seconds: no number")?),
                "--target" => {
                    let name = value()?;
                    let target = TARGETS.into_iter().find(|t| t.0 == name);
                    targets.push(target.with_context(|| format!("no target is named `{name}`"))?);
                }
                _ => bail!("{}", crate::USAGE),
            }
        }
        if targets.is_empty() {
            targets.extend(TARGETS);
        }
        Ok(Self { targets, seconds })
    }
}

// === impl Places ===

impl Places {
    fn run(&self, name: &str, max_len: u32, seconds: Option<u32>) -> Result<Line> {
        let (found, artifacts) = (self.found.join(name), self.artifacts.join(name));
        for folder in [&found, &artifacts, &self.logs] {
            fs::create_dir_all(folder)?;
        }
        let log = self.logs.join(format!("{name}.log"));
        let mut command = Command::new(self.binaries.join(name));
        command.arg(format!("-artifact_prefix={}/", artifacts.display()));
        command.args(["-rss_limit_mb=2048", "-timeout=10", "-print_final_stats=1"]);
        match seconds {
            // What it finds goes to the first folder.
            Some(seconds) => command
                .arg(format!("-max_total_time={seconds}"))
                .arg(format!("-max_len={max_len}"))
                .arg(&found),
            None => command.arg("-runs=0"),
        };
        command.arg(self.saved.join(name));
        let clean = command
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .status()
            .with_context(|| format!("run {name}"))?
            .success();
        let log = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let text = format!("{name}: {}{}", summary(&log), if clean { "" } else { ", a FINDING" });
        Ok(Line { text, clean })
    }
}

/// Runs, coverage and inputs kept, from libFuzzer's own words.
fn summary(log: &str) -> String {
    let stat = |name| log.lines().find_map(|l| l.strip_prefix(name)).map_or("?", str::trim);
    let runs = stat("stat::number_of_executed_units:");
    let last = log.lines().rev().find(|l| l.contains(" cov: ")).unwrap_or_default();
    let after = |name| {
        let mut words = last.split_whitespace().skip_while(|word| *word != name);
        words.nth(1).unwrap_or("?")
    };
    let [edges, features, corpus] = ["cov:", "ft:", "corp:"].map(after);
    format!("{runs} runs, {edges} edges, {features} features, corpus {corpus}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_targets_and_time() {
        let all = Plan::parse(&[]).unwrap();
        assert_eq!((all.targets.len(), all.seconds), (TARGETS.len(), Some(60)));
        let one = Plan::parse(&["--target", "wire", "--seconds", "5"]).unwrap();
        assert_eq!((one.targets[0].0, one.targets.len(), one.seconds), ("wire", 1, Some(5)));
        assert_eq!(Plan::parse(&["--corpus-only"]).unwrap().seconds, None);
        for bad in [&["--target", "none"][..], &["--seconds"], &["--seconds", "x"], &["fast"]] {
            assert!(Plan::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_log_is_summed_up() {
        let log = "#2\tINITED cov: 8 ft: 9 corp: 1/1b exec/s: 0 rss: 30Mb\n\
            #99\tNEW    cov: 12 ft: 20 corp: 3/7b lim: 4 exec/s: 0 rss: 30Mb\n\
            stat::number_of_executed_units: 1234\n";
        assert_eq!(summary(log), "1234 runs, 12 edges, 20 features, corpus 3/7b");
    }

    #[test]
    fn every_target_has_a_binary_and_a_corpus() {
        let fuzz = crate::workspace_root().unwrap().join("fuzz");
        for (name, _) in TARGETS {
            assert!(fuzz.join("fuzz_targets").join(format!("{name}.rs")).is_file(), "{name}");
            assert!(fuzz.join("corpus").join(name).is_dir(), "{name}");
        }
    }
}
