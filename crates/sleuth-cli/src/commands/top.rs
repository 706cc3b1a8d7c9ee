use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::runtime;
use crate::arguments::TopArguments;
use crate::top::{Replica, Snapshot, Totals, watch};

/// What `/replicas` says, as far as it is shown.
#[derive(Debug, Deserialize)]
struct Page {
    replicas: Vec<Row>,
    failovers: u64,
    imbalance: f64,
    retries_refused: u64,
}

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    state: String,
    why: Option<String>,
    version: Option<String>,
    queue_seconds: f64,
    unfinished_items: u64,
    scored: u64,
    positions_reused: u64,
    positions_computed: u64,
    p50_seconds: Option<f64>,
    p99_seconds: Option<f64>,
    placed: BTreeMap<String, u64>,
}

/// A router that does not answer is told above the last picture.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn run(arguments: &TopArguments) -> Result<ExitCode> {
    let url = format!("{}/replicas", arguments.admin.trim_end_matches('/'));
    // One that is installed already will do as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    runtime()?.block_on(async {
        let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
        let (client, url) = (&client, &url);
        watch(async move || fetch(client, url).await.map_err(|error| format!("{error:#}")))
            .await
            .with_context(|| format!("show {url}: is it the admin port of a router?"))
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn fetch(client: &reqwest::Client, url: &str) -> Result<Snapshot> {
    let answer = client.get(url).send().await?.error_for_status()?;
    let page: Page = serde_json::from_slice(&answer.bytes().await?)?;
    Ok(snapshot(page))
}

fn snapshot(page: Page) -> Snapshot {
    let whys = page
        .replicas
        .iter()
        .filter_map(|row| row.why.as_ref().map(|why| format!("{}: {why}", row.name)));
    let whys: Vec<String> = whys.collect();
    let sum = |of: fn(&Row) -> u64| page.replicas.iter().map(of).sum();
    let totals = Totals {
        unfinished: sum(|row| row.unfinished_items),
        finished: sum(|row| row.scored),
        failovers: page.failovers,
        retries_refused: page.retries_refused,
        imbalance: page.imbalance,
    };
    Snapshot {
        totals,
        fault: (!whys.is_empty()).then(|| whys.join("; ")),
        replicas: page.replicas.into_iter().map(replica).collect(),
    }
}

fn replica(row: Row) -> Replica {
    let positions = row.positions_reused + row.positions_computed;
    let millis = |seconds: f64| seconds * 1e3;
    Replica {
        hit_rate: (positions > 0).then(|| row.positions_reused as f64 / positions as f64),
        latency_ms: row.p50_seconds.zip(row.p99_seconds).map(|(a, b)| (millis(a), millis(b))),
        name: row.name,
        state: row.state,
        version: row.version.unwrap_or_default(),
        queue_seconds: row.queue_seconds,
        unfinished: row.unfinished_items,
        placed: row.placed.into_iter().collect(),
    }
}
