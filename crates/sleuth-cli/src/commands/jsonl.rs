//! Scoring a JSONL file: bounded memory, results in the order of the lines, resumable.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::StreamExt;
use sleuth_core::{Failure, Options, ScoreRequest, Scored};
use sleuth_service::{AdmissionSettings, Caller, Scorer, ServiceSettings};

use super::lines::{FLUSH_EVERY, IN_FLIGHT, Lines, NumberedLine, output_of, read_image};
use super::runtime;
use crate::arguments::ScoreArguments;
use crate::compose;
use crate::items::{FailedItem, Line, ScoredItem};
use crate::output;

/// One input line on its way.
struct Entry {
    id: String,
    text: String,
    verdict: Result<Scored, Failure>,
}

pub(super) fn run(arguments: &ScoreArguments, input: &Path, options: Options) -> Result<ExitCode> {
    let mut lines = Lines::open(input, "--jsonl")?;
    let (mut out, done) = output_of(arguments.out.as_deref(), arguments.resume)?;
    lines
        .pass_over(done)
        .with_context(|| format!("{} has fewer lines than the output", input.display()))?;
    let root =
        input.parent().filter(|_| input != Path::new("-")).unwrap_or(Path::new("")).to_owned();
    let bar = output::progress(None, "scored");
    bar.inc(done);
    let mut failed = 0_u64;
    runtime()?.block_on(async {
        // A file is no crowd: its lines wait for each other.
        let admission = AdmissionSettings { max_wait: Duration::MAX, ..Default::default() };
        let settings = ServiceSettings { admission, ..ServiceSettings::default() };
        let service = compose::start(&arguments.model, arguments.engine, settings).await?;
        let card = service.model();
        let (service, root) = (&service, &root);
        let entries = futures::stream::iter(lines)
            .map(|line| entry(service, root, arguments.prompt.as_deref(), options, line))
            .buffered(IN_FLIGHT);
        let mut entries = std::pin::pin!(entries);
        let mut written = 0_u64;
        while let Some(entry) = entries.next().await {
            let Entry { id, text, verdict } = entry?;
            match &verdict {
                Ok(scored) => {
                    let item = ScoredItem::new(Some(&id), &text, scored, &card);
                    output::json_line(&mut out, &item)?;
                }
                Err(failure) => {
                    failed += 1;
                    output::json_line(&mut out, &FailedItem::new(Some(&id), failure))?;
                }
            }
            written += 1;
            bar.inc(1);
            if written.is_multiple_of(FLUSH_EVERY) {
                out.flush()?;
            }
        }
        out.flush()?;
        anyhow::Ok(())
    })?;
    bar.finish_and_clear();
    if failed > 0 {
        output::note(&format!("{failed} lines failed; their results hold an `error`"));
        return Ok(ExitCode::from(3));
    }
    Ok(ExitCode::SUCCESS)
}

/// Scores one line. Only a failure to read the input itself ends the command.
async fn entry(
    service: &impl Scorer,
    root: &Path,
    prompt: Option<&str>,
    options: Options,
    line: Result<NumberedLine>,
) -> Result<Entry> {
    let line = match line?.parse::<Line>() {
        Ok(line) => line,
        Err((id, failure)) => {
            return Ok(Entry { id, text: String::new(), verdict: Err(failure) });
        }
    };
    let verdict = match read_image(root.join(&line.image)).await {
        Ok(image) => {
            let mut request = ScoreRequest::new(Bytes::from(image), line.response.clone());
            request.context.prompt = line.prompt.or_else(|| prompt.map(str::to_owned));
            request.context.options = options;
            service.score(&Caller::default(), request).await
        }
        Err(failure) => Err(failure),
    };
    Ok(Entry { id: line.id, text: line.response, verdict })
}
