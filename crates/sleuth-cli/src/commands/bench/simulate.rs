//! Placement policies on simulated replicas.

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use sleuth_engine::{EngineLoad, USUAL_PROMPT};
use sleuth_lab::bench::mixed;
use sleuth_lab::chart::{DotRow, dots};
use sleuth_router::simulate::{Arrival, DeviceCost, Outcome, Workload, policies, run, workloads};

use super::SEED;
use crate::arguments::{BenchArguments, Format, SimulateArguments};
use crate::output::{self, Table};
use crate::{compose, environment};

/// Batches from which the engine learns what work costs.
const BATCHES: usize = 60;

/// A line of a recorded step.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    /// Seconds since the step began.
    at: f64,
    /// Names the image and prompt.
    prefix: u64,
    prefix_positions: u32,
    response_tokens: u32,
    #[serde(default)]
    group: Option<u64>,
    #[serde(default)]
    group_size: u32,
}

/// One policy on one workload, over all seeds.
#[derive(Debug, Serialize)]
struct Row {
    workload: String,
    policy: &'static str,
    items: usize,
    replicas: usize,
    /// Makespan over the lower bound: mean and worst over seeds.
    over_bound: f64,
    worst_over_bound: f64,
    seconds: f64,
    p50_ms: f64,
    p99_ms: f64,
    hit_rate: f64,
    prefixes_computed: f64,
    prefixes: f64,
    /// Most seconds of a replica over the mean.
    imbalance: f64,
    fewest_items: usize,
    most_items: usize,
    /// Items come by a clock: latencies tell, and not the time until all is done.
    open_loop: bool,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Report {
    /// Seconds of a batch, of a prefix's position, of a response's token, of an image.
    cost: [f64; 4],
    measured: bool,
    seeds: u64,
    rows: Vec<Row>,
}

pub(super) fn simulate(bench: &BenchArguments) -> Result<ExitCode> {
    let arguments = &bench.simulation;
    let cost = match &arguments.cost {
        Some(cost) => *cost,
        None => measured(bench)?,
    };
    let report = report(arguments, &cost)?;
    if let Some(path) = &arguments.simulation_plot {
        fs::write(path, plot(&report)).with_context(|| format!("write {}", path.display()))?;
    }
    let mut out = io::stdout().lock();
    if bench.format == Format::Json {
        output::json_line(&mut out, &report)?;
    } else {
        print(&mut out, &report)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What work costs the engine here, with the model that was asked for.
fn measured(bench: &BenchArguments) -> Result<DeviceCost> {
    let folder = compose::model_folder(&bench.model)?;
    let options = compose::load_options(&bench.model, &folder)?;
    let threads = bench.threads.unwrap_or_else(environment::cores);
    let (_, load, image_rows) = mixed::measure(&folder, &options, threads, BATCHES, SEED)?;
    let EngineLoad { batch_seconds, image_seconds, prefix_seconds, response_token_seconds, .. } =
        load;
    let positions = (image_rows + USUAL_PROMPT) as f64;
    Ok(DeviceCost {
        batch_seconds,
        seconds_per_prefix_position: (prefix_seconds - image_seconds).max(0.0) / positions,
        seconds_per_response_token: response_token_seconds,
        seconds_per_image: image_seconds,
    })
}

fn report(arguments: &SimulateArguments, cost: &DeviceCost) -> Result<Report> {
    let seeds = arguments.seeds.max(1);
    let all: Vec<Vec<Workload>> = match &arguments.arrivals {
        Some(path) => {
            let text =
                fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            let arrivals = recorded(&text).with_context(|| format!("{}", path.display()))?;
            let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            vec![vec![Workload::recorded(name, arguments.replicas, arrivals)]; seeds as usize]
        }
        None => (1..=seeds).map(|seed| workloads(seed, cost)).collect(),
    };
    let only = arguments.workload.as_deref().unwrap_or_default();
    let bar = output::progress(Some(all[0].len() as u64), "simulate");
    let mut rows = Vec::new();
    for place in 0..all[0].len() {
        bar.inc(1);
        if !all[0][place].name.contains(only) {
            continue;
        }
        for number in 0..policies(1).len() {
            let outcomes: Vec<Outcome> = (1..=seeds)
                .zip(&all)
                .map(|(seed, workloads)| {
                    let mut policies = policies(seed);
                    run(&workloads[place], &mut *policies[number], cost)
                })
                .collect();
            rows.push(Row::of(&all[0][place], &outcomes));
        }
    }
    bar.finish_and_clear();
    ensure!(!rows.is_empty(), "no workload is called like `{only}`");
    let DeviceCost {
        batch_seconds,
        seconds_per_prefix_position,
        seconds_per_response_token,
        seconds_per_image,
    } = *cost;
    Ok(Report {
        cost: [
            batch_seconds,
            seconds_per_prefix_position,
            seconds_per_response_token,
            seconds_per_image,
        ],
        measured: arguments.cost.is_none(),
        seeds,
        rows,
    })
}

/// A step that was recorded, a JSON object for each item.
fn recorded(text: &str) -> Result<Vec<Arrival>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let arrivals: Result<Vec<Arrival>> = lines
        .map(|(place, line)| {
            let item: Recorded =
                serde_json::from_str(line).with_context(|| format!("line {}", place + 1))?;
            let at = Duration::try_from_secs_f64(item.at);
            Ok(Arrival {
                at: at.with_context(|| format!("line {}: at", place + 1))?,
                prefix: item.prefix,
                prefix_positions: item.prefix_positions,
                images: 1,
                response_tokens: item.response_tokens,
                group: item.group,
                group_size: item.group_size,
                text: vec![(item.prefix, item.prefix_positions)],
                ..Arrival::default()
            })
        })
        .collect();
    let arrivals = arrivals?;
    ensure!(!arrivals.is_empty(), "no items");
    Ok(arrivals)
}

fn print(out: &mut impl Write, report: &Report) -> Result<()> {
    let [batch, position, token, image] = report.cost;
    let origin = if report.measured { "measured here" } else { "as given" };
    writeln!(
        out,
        "Costs {origin}: batch {:.3} ms, prefix position {:.2} µs, response token {:.2} µs, image \
         {:.3} ms. Means over {} seeds.\n",
        batch * 1e3,
        position * 1e6,
        token * 1e6,
        image * 1e3,
        report.seeds
    )?;
    let heads = [
        "policy",
        "over bound",
        "worst",
        "p50 ms",
        "p99 ms",
        "hits",
        "prefixes",
        "max/mean",
        "items",
    ];
    for rows in report.rows.chunk_by(|a, b| a.workload == b.workload) {
        let Row { workload, items, replicas, .. } = &rows[0];
        writeln!(out, "{workload}: {items} items, {replicas} replicas")?;
        let mut table = Table::new(&heads);
        for row in rows {
            table.row(vec![
                row.policy.to_owned(),
                format!("{:.3}", row.over_bound),
                format!("{:.3}", row.worst_over_bound),
                format!("{:.1}", row.p50_ms),
                format!("{:.1}", row.p99_ms),
                format!("{:.1} %", 100.0 * row.hit_rate),
                format!("{:.0}/{:.0}", row.prefixes_computed, row.prefixes),
                format!("{:.3}", row.imbalance),
                format!("{} to {}", row.fewest_items, row.most_items),
            ]);
        }
        writeln!(out, "{table}")?;
    }
    Ok(())
}

/// Steps by the time until all is done, over the bound; open loops by their slowest hundredth, over
/// the best policy's.
fn plot(report: &Report) -> String {
    let series: Vec<&str> = policies(1).iter().map(|policy| policy.name()).collect();
    let rows: Vec<DotRow> = report
        .rows
        .chunk_by(|a, b| a.workload == b.workload)
        .map(|rows| {
            let best = rows.iter().map(|row| row.p99_ms).fold(f64::MAX, f64::min);
            let value = |row: &Row| {
                if row.open_loop { row.p99_ms / best.max(1e-9) } else { row.over_bound }
            };
            let name = if rows[0].open_loop { " (p99)" } else { "" };
            DotRow {
                name: format!("{}{name}", rows[0].workload),
                values: rows.iter().map(|row| Some(value(row).max(1e-3))).collect(),
            }
        })
        .collect();
    let axis = "time over the lower bound; of open loops p99 over the best policy's";
    dots("Placement policies on simulated replicas", axis, &series, &rows)
}

// === impl Row ===

impl Row {
    fn of(workload: &Workload, outcomes: &[Outcome]) -> Self {
        let mean = |value: fn(&Outcome) -> f64| {
            outcomes.iter().map(value).sum::<f64>() / outcomes.len() as f64
        };
        Self {
            workload: workload.name.clone(),
            policy: outcomes[0].policy,
            items: workload.items(),
            replicas: workload.speeds.len(),
            over_bound: mean(Outcome::ratio),
            worst_over_bound: outcomes.iter().map(Outcome::ratio).fold(0.0, f64::max),
            seconds: mean(|outcome| outcome.makespan),
            p50_ms: mean(|outcome| outcome.p50 * 1e3),
            p99_ms: mean(|outcome| outcome.p99 * 1e3),
            hit_rate: mean(|outcome| outcome.hit_rate),
            prefixes_computed: mean(|outcome| outcome.computations as f64),
            prefixes: mean(|outcome| outcome.prefixes as f64),
            imbalance: mean(|outcome| outcome.imbalance),
            fewest_items: outcomes.iter().map(|outcome| outcome.fewest).min().unwrap_or(0),
            most_items: outcomes.iter().map(|outcome| outcome.most).max().unwrap_or(0),
            open_loop: workload.is_open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_step_is_read_and_bad_lines_are_named() {
        let line = r#"{"at": 0.5, "prefix": 7, "prefix_positions": 80, "response_tokens": 60, "group": 1}"#;
        let arrivals = recorded(&format!("{line}\n\n{line}\n")).unwrap();
        assert_eq!((arrivals.len(), arrivals[0].prefix), (2, 7));
        assert_eq!(arrivals[1].at, Duration::from_millis(500));
        for (bad, said) in [
            (format!("{line}\n{{}}"), "line 2"),
            (line.replace("0.5", "-1"), "line 1: at"),
            (line.replace("\"at\"", "\"when\""), "line 1"),
            (String::new(), "no items"),
        ] {
            let error = format!("{:#}", recorded(&bad).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }
}
