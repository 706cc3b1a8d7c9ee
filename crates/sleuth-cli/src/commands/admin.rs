use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sleuth_client::{ClientSettings, LoadedAdapter, LoadedWeights, Operator, Security};

use super::runtime;
use crate::arguments::{AdminAction, AdminArguments};
use crate::{connect, output};

pub(super) fn run(arguments: &AdminArguments) -> Result<ExitCode> {
    let security = connect::security(&arguments.security)?;
    let done = runtime()?.block_on(act(arguments, &security))?;
    let mut out = io::stdout().lock();
    if arguments.json {
        output::json_line(&mut out, &done.object)?;
    } else {
        writeln!(out, "{}", done.text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What to print.
struct Done {
    text: String,
    object: Value,
}

async fn act(arguments: &AdminArguments, security: &Security) -> Result<Done> {
    let url = &arguments.target;
    let operator = Operator::connect(url, &ClientSettings::default(), security)
        .await
        .with_context(|| format!("connect to {url}"))?;
    let seconds = |seconds: &Option<u64>| seconds.map(Duration::from_secs);
    Ok(match &arguments.action {
        AdminAction::LoadWeights { path, expect, keep } => {
            let LoadedWeights { version, previous } =
                operator.load_weights(path, expect, seconds(keep)).await?;
            let text = if version == previous {
                format!("{version} was the default already")
            } else {
                format!("{version} is the default; before, it was {previous}")
            };
            Done { text, object: json!({ "version": version, "previous_version": previous }) }
        }
        AdminAction::LoadAdapter { name, path, expect, make_default } => {
            let loaded = operator.load_adapter(name, path, expect, *make_default).await?;
            Done { text: line(&loaded), object: object(&loaded) }
        }
        AdminAction::UnloadAdapter { name } => {
            operator.unload_adapter(name).await?;
            Done { text: format!("{name} is offered no more"), object: json!({ "name": name }) }
        }
        AdminAction::Adapters => {
            let all = operator.adapters().await?;
            let lines: Vec<_> = all.iter().map(line).collect();
            let text = if lines.is_empty() { "no adapter".to_owned() } else { lines.join("\n") };
            Done { text, object: all.iter().map(object).collect() }
        }
        AdminAction::Drain { deadline } => {
            let abandoned = operator.drain(seconds(deadline)).await?;
            let text = format!("drained; {abandoned} items were given up");
            Done { text, object: json!({ "abandoned_items": abandoned }) }
        }
    })
}

fn line(adapter: &LoadedAdapter) -> String {
    let LoadedAdapter { name, version, bytes, is_default } = adapter;
    let note = if *is_default { ", the default" } else { "" };
    format!("{name}: version {version}, {} MiB{note}", bytes.div_ceil(1 << 20))
}

fn object(adapter: &LoadedAdapter) -> Value {
    let LoadedAdapter { name, version, bytes, is_default } = adapter;
    json!({ "name": name, "version": version, "size_bytes": bytes, "is_default": is_default })
}
