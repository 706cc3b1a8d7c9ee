use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::runtime;
use crate::arguments::ProbeArguments;

pub(super) fn run(arguments: &ProbeArguments) -> Result<ExitCode> {
    let ProbeArguments { url, timeout } = arguments;
    // One that is installed already will do as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (status, body) = runtime()?
        .block_on(ask(url, Duration::from_secs_f64(*timeout)))
        .with_context(|| format!("ask {url}"))?;
    let said = body.lines().next().unwrap_or_default();
    writeln!(std::io::stdout(), "{status} {said}")?;
    Ok(if status == 200 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The answer's status and the start of its body.
async fn ask(url: &str, timeout: Duration) -> Result<(u16, String)> {
    let client = reqwest::Client::builder().timeout(timeout).no_proxy().build()?;
    let mut answer = client.get(url).send().await?;
    let status = answer.status().as_u16();
    let body = answer.chunk().await?.unwrap_or_default();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
