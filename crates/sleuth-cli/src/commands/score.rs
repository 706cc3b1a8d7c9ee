use std::fs;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use bytes::Bytes;
use sleuth_core::{Failure, ModelCard, Options, ScoreRequest, Scored};
use sleuth_service::{Caller, Scorer, ServiceSettings};

use super::{jsonl, runtime};
use crate::arguments::{Format, ScoreArguments};
use crate::compose;
use crate::items::{FailedItem, ScoredItem, slice};
use crate::output::{self, Table};

pub(super) fn run(arguments: &ScoreArguments) -> Result<ExitCode> {
    let options = Options {
        aggregation: arguments.aggregation,
        threshold: arguments.threshold,
        ..Options::default()
    };
    match (&arguments.jsonl, &arguments.image, &arguments.response) {
        (Some(input), _, _) => jsonl::run(arguments, input, options),
        (None, Some(image), Some(response)) => {
            let image = fs::read(image).with_context(|| format!("--image {}", image.display()))?;
            one(arguments, image, response, options)
        }
        _ => anyhow::bail!("--image and --response belong together"),
    }
}

fn one(
    arguments: &ScoreArguments,
    image: Vec<u8>,
    response: &str,
    options: Options,
) -> Result<ExitCode> {
    let mut request = ScoreRequest::new(Bytes::from(image), response);
    request.context.prompt.clone_from(&arguments.prompt);
    request.context.options = options;
    let (verdict, card) = runtime()?.block_on(async {
        let settings = ServiceSettings::default();
        let service = compose::start(&arguments.model, arguments.engine, settings).await?;
        let verdict = service.score(&Caller::default(), request).await;
        anyhow::Ok((verdict, service.model()))
    })?;
    match verdict {
        Ok(scored) => {
            print(arguments, response, &scored, &card)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            refuse(arguments.format, &failure)?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn print(
    arguments: &ScoreArguments,
    response: &str,
    scored: &Scored,
    card: &ModelCard,
) -> Result<()> {
    let mut out = io::stdout().lock();
    match arguments.format {
        Format::Json => output::json_line(&mut out, &ScoredItem::new(None, response, scored, card)),
        Format::Table => Ok(write!(out, "{}", tokens(response, scored))?),
        Format::Pretty => {
            let threshold = arguments.threshold.unwrap_or(card.threshold);
            let colour = out.is_terminal();
            Ok(out
                .write_all(output::pretty(response, scored, card, threshold, colour).as_bytes())?)
        }
    }
}

fn tokens(response: &str, scored: &Scored) -> Table {
    let mut table = Table::new(&["start", "end", "reward", "logit", "token"]);
    for token in &scored.tokens {
        table.row(vec![
            token.span.start().to_string(),
            token.span.end().to_string(),
            format!("{:.4}", token.reward),
            format!("{:.3}", token.logit),
            format!("{:?}", slice(response, token.span)),
        ]);
    }
    table
}

fn refuse(format: Format, failure: &Failure) -> Result<()> {
    if format == Format::Json {
        output::json_line(&mut io::stdout().lock(), &FailedItem::new(None, failure))?;
    }
    output::error(&anyhow::Error::new(failure.clone()));
    Ok(())
}
