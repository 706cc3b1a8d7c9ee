//! Driving a server.

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use sleuth_client::RetrySettings;
use sleuth_lab::load::{
    Arrivals, Counts, DriveSettings, Plan, PlanSettings, Remote, RemoteSettings, Report, Retries,
    Until, drive, plot,
};

use super::super::runtime;
use crate::arguments::{Format, LoadArguments};
use crate::connect;
use crate::output::{self, Table};

/// How long a progress bar waits between looks.
const TICK: Duration = Duration::from_millis(200);

pub(super) fn run(target: &str, arguments: &LoadArguments, format: Format) -> Result<ExitCode> {
    let report = runtime()?.block_on(measure(target, arguments))?;
    if let Some(path) = &arguments.plot {
        fs::write(path, plot(&report)).with_context(|| format!("--plot {}", path.display()))?;
    }
    print(&report, format)?;
    let enough = has_enough(&report.counts, arguments.expect_valid);
    if !enough {
        let Counts { valid, sent, .. } = report.counts;
        output::note(&format!("{valid} of {sent} items are valid, fewer than --expect-valid"));
    }
    Ok(if report.passes && enough { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the share of valid items is the expected one; of no items none is.
fn has_enough(counts: &Counts, expected: Option<f64>) -> bool {
    let Some(expected) = expected else { return true };
    counts.sent > 0 && counts.valid as f64 >= expected * counts.sent as f64
}

async fn measure(target: &str, arguments: &LoadArguments) -> Result<Report> {
    let settings = plan(arguments);
    let plan = Plan::try_new(settings)?;
    let remote = RemoteSettings {
        connections: arguments.connections,
        prompt: arguments.prompt.clone(),
        timeout: arguments.timeout,
        security: connect::security(&arguments.security)?,
        retry: RetrySettings { attempts: arguments.attempts, ..RetrySettings::default() },
        ..RemoteSettings::default()
    };
    let remote = Remote::connect(target, remote, settings).await?;
    let (prompt, response) = remote.tokens().await?;
    output::note(&format!("items of {prompt}+{response} tokens, image by digest"));
    let drive_settings = DriveSettings {
        retries: Retries { max: arguments.retries },
        copy_every: arguments.copy_every,
        ..DriveSettings::default()
    };
    let bar = tokio::spawn(progress(settings.warm_up + arguments.seconds));
    let stop = async {
        // Without a handler the signal ends the process itself.
        let _ = tokio::signal::ctrl_c().await;
    };
    let outcome = drive(plan, Arc::new(remote), drive_settings, stop).await;
    bar.abort();
    Ok(Report::new(target.to_owned(), outcome))
}

fn plan(arguments: &LoadArguments) -> PlanSettings {
    let rate_per_second = arguments.rate;
    let arrivals = match arguments.step_groups {
        Some(groups) => Arrivals::Steps { groups, every: arguments.step_every },
        None if arguments.even => Arrivals::Even { rate_per_second },
        None => Arrivals::Poisson { rate_per_second },
    };
    PlanSettings {
        arrivals,
        group_size: arguments.group,
        images: arguments.images,
        until: Until::Seconds(arguments.seconds),
        warm_up: arguments.warm_up,
        least_words: arguments.words,
        most_words: arguments.words,
        seed: arguments.seed,
    }
}

async fn progress(whole: Duration) {
    let bar = output::progress(Some(whole.as_secs()), "seconds");
    let began = tokio::time::Instant::now();
    loop {
        bar.set_position(began.elapsed().as_secs().min(whole.as_secs()));
        tokio::time::sleep(TICK).await;
    }
}

fn print(report: &Report, format: Format) -> Result<()> {
    let mut out = io::stdout().lock();
    if format == Format::Json {
        return output::json_line(&mut out, report);
    }
    let mut table = Table::new(&["", ""]);
    for (name, value) in report.table() {
        table.row(vec![name, value]);
    }
    Ok(write!(out, "{table}")?)
}
