mod data;
mod jsonl;
mod pairs;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use sleuth_core::{
    CorrectEvent, CorrectRequest, Corrected, Correction, ModelCard, Options, Proposal, Proposed,
    ScoreRequest,
};
use sleuth_service::{AdmissionSettings, Caller, Corrections, ScoreService, ServiceSettings};
use tokio::sync::mpsc;

use self::pairs::{Pair, PairsFile};
use super::runtime;
use crate::arguments::{CorrectArguments, CorrectorArgument, Format};
use crate::compose;
use crate::items::{AttemptItem, CorrectedItem, EventItem, FailedItem};
use crate::output::{self, Table};

/// As for `sleuth score`: some of it is left to do.
const INCOMPLETE: u8 = 3;
/// MiB for the corrector `builtin` where nothing else is said.
const BUILTIN_MEMORY: u64 = 8192;

pub(super) fn run(arguments: &CorrectArguments) -> Result<ExitCode> {
    if let Some(folder) = &arguments.data {
        return data::run(arguments, folder);
    }
    match (&arguments.jsonl, &arguments.image, &arguments.response) {
        (Some(input), _, _) => jsonl::run(arguments, input),
        (None, Some(path), Some(response)) => {
            let image = fs::read(path).with_context(|| format!("--image {}", path.display()))?;
            one(arguments, path, image.into(), response)
        }
        _ => anyhow::bail!("--image and --response belong together"),
    }
}

/// The service with the correctors that are set up.
async fn compose(arguments: &CorrectArguments) -> Result<ScoreService> {
    let (model, engine, builtin) = (&arguments.model, arguments.engine, arguments.builtin);
    let is_builtin = arguments.corrector == CorrectorArgument::Builtin;
    let memory = is_builtin.then(|| builtin.corrector_memory.unwrap_or(BUILTIN_MEMORY));
    let correctors =
        compose::correctors(model, engine, &arguments.endpoint, builtin, memory).await?;
    // A file is no crowd: its lines wait for each other.
    let admission = AdmissionSettings { max_wait: Duration::MAX, ..Default::default() };
    let settings = ServiceSettings { admission, ..ServiceSettings::default() };
    let service = compose::start(&arguments.model, arguments.engine, settings).await?;
    Ok(service.with_corrections(correctors))
}

fn request(
    arguments: &CorrectArguments,
    image: Bytes,
    prompt: Option<String>,
    response: &str,
) -> CorrectRequest<Bytes> {
    let mut item = ScoreRequest::new(image, response);
    item.context.prompt = prompt.or_else(|| arguments.prompt.clone());
    item.context.timeout = Some(Duration::from_secs(arguments.timeout));
    item.context.options = Options {
        aggregation: arguments.aggregation,
        threshold: arguments.threshold,
        ..Options::default()
    };
    CorrectRequest {
        item,
        corrector: arguments.corrector.into(),
        guidance: arguments.guidance.into(),
        max_rounds: arguments.rounds,
        max_candidates: arguments.candidates,
        seed: arguments.seed,
    }
}

/// Corrects one response; `tell` sees what happens as it happens.
async fn correct(
    corrections: &Corrections,
    request: CorrectRequest<Bytes>,
    mut tell: impl FnMut(&CorrectEvent) -> Result<()>,
) -> Result<(Correction, Vec<CorrectEvent>)> {
    let (sender, mut events) = mpsc::channel(16);
    let caller = Caller::default();
    let work = async {
        let never = std::future::pending();
        let correction = corrections.correct(&caller, request, never, &sender).await;
        drop(sender);
        correction
    };
    let reading = async {
        let mut all = Vec::new();
        while let Some(event) = events.recv().await {
            tell(&event)?;
            all.push(event);
        }
        anyhow::Ok(all)
    };
    let (correction, events) = tokio::join!(work, reading);
    Ok((correction, events?))
}

fn one(
    arguments: &CorrectArguments,
    path: &Path,
    image: Bytes,
    response: &str,
) -> Result<ExitCode> {
    let mut pairs = arguments.pairs.as_deref().map(PairsFile::create).transpose()?;
    let request = request(arguments, image, None, response);
    let tell = |event: &CorrectEvent| {
        if arguments.events {
            output::json_line(&mut io::stdout().lock(), &EventItem::new(response, event))?;
        }
        Ok(())
    };
    let (correction, events, card) = runtime()?.block_on(async {
        let service = compose(arguments).await?;
        let card = service.model();
        let corrections = service.corrections().context("the service corrects nothing")?;
        let (correction, events) = correct(corrections, request, tell).await?;
        anyhow::Ok((correction, events, card))
    })?;
    let corrected = match &correction.outcome {
        Ok(corrected) => corrected,
        Err(failure) => {
            if arguments.format == Format::Json {
                output::json_line(&mut io::stdout().lock(), &FailedItem::new(None, failure))?;
            }
            output::error(&anyhow::Error::new(failure.clone()));
            return Ok(ExitCode::FAILURE);
        }
    };
    print(arguments, response, corrected, &correction, &events, &card)?;
    if let Some(pairs) = &mut pairs {
        let prompt = arguments.prompt.as_deref().unwrap_or(&card.prompt);
        pairs.add(Pair::of(path, prompt, response, corrected)?)?;
        pairs.flush()?;
    }
    Ok(match &corrected.stopped {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            output::error(&anyhow::Error::new(failure.clone()).context("ended early"));
            ExitCode::from(INCOMPLETE)
        }
    })
}

fn print(
    arguments: &CorrectArguments,
    response: &str,
    corrected: &Corrected,
    correction: &Correction,
    events: &[CorrectEvent],
    card: &ModelCard,
) -> Result<()> {
    let mut out = io::stdout().lock();
    match arguments.format {
        Format::Json => {
            let item = CorrectedItem::new(None, response, corrected, correction, events, card);
            output::json_line(&mut out, &item)
        }
        Format::Table => {
            let attempts = AttemptItem::all(correction, events);
            Ok(write!(out, "{}", table(&attempts))?)
        }
        Format::Pretty => {
            let colour = out.is_terminal();
            let text =
                output::difference(response, &corrected.response, &corrected.changes, colour);
            writeln!(out, "{text}\n")?;
            for attempt in AttemptItem::all(correction, events) {
                let fate = attempt.dropped.unwrap_or("kept");
                writeln!(out, "  round {}  {fate}  {}", attempt.round, attempt.response)?;
            }
            if let Some(prompt) = events.iter().find_map(guidance) {
                writeln!(out, "{prompt}\n")?;
            }
            let Corrected { scored, reward_before, kept, .. } = corrected;
            let version = scored.version.get(..12).unwrap_or(&scored.version);
            writeln!(
                out,
                "  reward {reward_before:.3} -> {:.3} ({}), {kept} kept of {}, {} {version}",
                scored.reward,
                scored.aggregation,
                correction.attempts.len(),
                card.name
            )?;
            Ok(())
        }
    }
}

fn table(attempts: &[AttemptItem<'_>]) -> Table {
    let mut table = Table::new(&["round", "candidate", "reward", "flagged", "fate", "response"]);
    let number = |reward: Option<f32>| reward.map_or_else(String::new, |r| format!("{r:.4}"));
    for attempt in attempts {
        table.row(vec![
            attempt.round.to_string(),
            attempt.candidate.to_string(),
            number(attempt.reward),
            attempt.flagged_tokens.map_or_else(String::new, |n| n.to_string()),
            attempt.dropped.unwrap_or("kept").to_owned(),
            format!("{:?}", attempt.response),
        ]);
    }
    table
}

fn guidance(event: &CorrectEvent) -> Option<&str> {
    match event {
        CorrectEvent::Proposed(Proposed { proposal: Proposal::Guidance(prompt), .. }) => {
            Some(prompt)
        }
        _ => None,
    }
}
