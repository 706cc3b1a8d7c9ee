use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sleuth_chat::{ApiKey, ChatClient, Endpoint, Limits, Pace};
use sleuth_lab::data::Taxonomy;
use sleuth_lab::perturb::{Perturber, Plan, Settings, Summary, perturb_folder};

use crate::arguments::{Format, PerturbArguments};
use crate::output::{self, Table};

/// As for `sleuth score`: some of it is left to do.
const INCOMPLETE: u8 = 3;

pub(super) fn run(arguments: &PerturbArguments) -> Result<ExitCode> {
    let perturber = perturber(arguments)?;
    let all = arguments.taxonomies.is_empty();
    let plan = Plan {
        data: arguments.data.clone(),
        out: arguments.out.clone(),
        taxonomies: if all { Taxonomy::ALL.to_vec() } else { arguments.taxonomies.clone() },
        most_records: arguments.count.unwrap_or(u64::MAX),
        concurrency: arguments.concurrency,
    };
    let bar = output::progress(Some(0), "edits");
    let report = |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let summary = super::runtime()?.block_on(perturb_folder(&plan, &perturber, report))?;
    bar.finish_and_clear();
    print(&summary, arguments)?;
    if summary.failed > 0 {
        output::note("some edits got no reply; the same command tries them again");
        return Ok(ExitCode::from(INCOMPLETE));
    }
    Ok(ExitCode::SUCCESS)
}

fn perturber(arguments: &PerturbArguments) -> Result<Perturber> {
    let key = match &arguments.key_file {
        Some(path) => {
            let text = fs::read_to_string(path)
                .with_context(|| format!("--key-file {}", path.display()))?;
            let key = ApiKey::new(&text);
            ensure!(key.is_some(), "--key-file {} is empty", path.display());
            key
        }
        None => None,
    };
    let endpoint = Endpoint::new(&arguments.url, &arguments.chat_model, key).context("--url")?;
    let limits = Limits {
        timeout: Duration::from_secs(arguments.timeout),
        attempts: arguments.attempts,
        ..Limits::default()
    };
    let pace = Pace::per_minute(arguments.requests_per_minute);
    let client = ChatClient::new(endpoint, limits, pace)?;
    let settings = Settings { temperature: arguments.temperature, seed: arguments.seed };
    Ok(Perturber::new(client, settings))
}

/// The cost by the prices given, in their currency.
fn cost(summary: &Summary, arguments: &PerturbArguments) -> Option<f64> {
    let (read, written) = (arguments.price_in?, arguments.price_out?);
    let usage = summary.usage;
    Some((usage.prompt_tokens as f64 * read + usage.completion_tokens as f64 * written) / 1e6)
}

fn print(summary: &Summary, arguments: &PerturbArguments) -> Result<()> {
    let mut out = io::stdout().lock();
    let cost = cost(summary, arguments);
    if arguments.format == Format::Json {
        let mut value = serde_json::to_value(summary)?;
        value["cost"] = json!(cost);
        return output::json_line(&mut out, &value);
    }
    let mut table = Table::new(&["edits kept", ""]);
    for (name, count) in &summary.kept {
        table.row(vec![(*name).to_owned(), count.to_string()]);
    }
    write!(out, "{table}")?;
    if !summary.dropped.is_empty() {
        let mut table = Table::new(&["edits dropped", ""]);
        for (reason, count) in &summary.dropped {
            table.row(vec![(*reason).to_owned(), count.to_string()]);
        }
        write!(out, "\n{table}")?;
    }
    let usage = summary.usage;
    writeln!(
        out,
        "\n{} clean records, {} others left out, {} edits without a reply\n{} requests, {} tokens \
         read, {} written{}",
        summary.records,
        summary.not_clean,
        summary.failed,
        usage.requests,
        usage.prompt_tokens,
        usage.completion_tokens,
        cost.map_or_else(String::new, |cost| format!(", cost {cost:.4}")),
    )?;
    writeln!(out, "wrote {}", arguments.out.display())?;
    Ok(())
}
