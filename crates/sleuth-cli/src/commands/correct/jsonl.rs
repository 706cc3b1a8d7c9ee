use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::Deserialize;
use sleuth_core::{CorrectEvent, Correction, Failure};
use sleuth_service::Corrections;

use super::pairs::{Pair, PairsFile};
use super::{INCOMPLETE, compose, correct, request};
use crate::arguments::CorrectArguments;
use crate::commands::lines::{FLUSH_EVERY, IN_FLIGHT, Lines, NumberedLine, output_of, read_image};
use crate::commands::runtime;
use crate::items::{CorrectedItem, FailedItem, Line};
use crate::output;

/// One input line on its way.
struct Entry {
    id: String,
    /// The item, unless the line is none.
    line: Option<Line>,
    correction: Correction,
    events: Vec<CorrectEvent>,
}

/// What pairs need of an earlier result.
#[derive(Deserialize)]
struct Earlier {
    #[serde(default)]
    response: String,
    #[serde(default)]
    kept: u32,
}

pub(super) fn run(arguments: &CorrectArguments, input: &Path) -> Result<ExitCode> {
    let mut lines = Lines::open(input, "--jsonl")?;
    let (mut out, done) = output_of(arguments.out.as_deref(), arguments.resume)?;
    let root =
        input.parent().filter(|_| input != Path::new("-")).unwrap_or(Path::new("")).to_owned();
    let mut pairs = arguments.pairs.as_deref().map(PairsFile::create).transpose()?;
    let bar = output::progress(None, "corrected");
    let mut incomplete = 0_u64;
    runtime()?.block_on(async {
        let service = compose(arguments).await?;
        let card = service.model();
        let prompt = arguments.prompt.as_deref().unwrap_or(&card.prompt);
        let earlier = arguments.out.as_deref().filter(|_| done > 0);
        again(&mut lines, earlier, done, &root, prompt, pairs.as_mut())
            .with_context(|| format!("{} does not fit the output", input.display()))?;
        bar.inc(done);
        let corrections = service.corrections().context("the service corrects nothing")?;
        let entries = futures::stream::iter(lines)
            .map(|line| entry(corrections, arguments, &root, line))
            .buffered(IN_FLIGHT);
        let mut entries = std::pin::pin!(entries);
        let mut written = 0_u64;
        while let Some(entry) = entries.next().await {
            let Entry { id, line, correction, events } = entry?;
            let original = line.as_ref().map_or("", |line| line.response.as_str());
            match &correction.outcome {
                Ok(corrected) => {
                    incomplete += u64::from(corrected.stopped.is_some());
                    if let (Some(pairs), Some(line)) = (&mut pairs, &line) {
                        let asked = line.prompt.as_deref().unwrap_or(prompt);
                        let image = root.join(&line.image);
                        pairs.add(Pair::of(&image, asked, original, corrected)?)?;
                    }
                    let item = CorrectedItem::new(
                        Some(&id),
                        original,
                        corrected,
                        &correction,
                        &events,
                        &card,
                    );
                    output::json_line(&mut out, &item)?;
                }
                Err(failure) => {
                    incomplete += 1;
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
        pairs.as_mut().map_or(Ok(()), PairsFile::flush)
    })?;
    bar.finish_and_clear();
    if incomplete > 0 {
        let note = "lines failed or ended early; their results hold `error` or `stopped`";
        output::note(&format!("{incomplete} {note}"));
        return Ok(ExitCode::from(INCOMPLETE));
    }
    Ok(ExitCode::SUCCESS)
}

/// Passes over lines that an earlier run has corrected, and writes their pairs anew.
fn again(
    lines: &mut Lines,
    results: Option<&Path>,
    done: u64,
    root: &Path,
    prompt: &str,
    pairs: Option<&mut PairsFile>,
) -> Result<()> {
    let (Some(results), Some(pairs)) = (results, pairs) else { return lines.pass_over(done) };
    let results = BufReader::new(File::open(results)?).lines();
    for result in results.take(usize::try_from(done)?) {
        let line = lines.next().context("the input ended")??;
        let result: Earlier = serde_json::from_str(&result?)?;
        if let (Ok(line), true) = (line.parse::<Line>(), result.kept > 0) {
            let asked = line.prompt.as_deref().unwrap_or(prompt);
            let image = root.join(&line.image);
            pairs.add(Some(Pair::new(&image, asked, &result.response, &line.response)?))?;
        }
    }
    Ok(())
}

/// Corrects one line. Only a failure to read the input itself ends the command.
async fn entry(
    corrections: &Corrections,
    arguments: &CorrectArguments,
    root: &Path,
    line: Result<NumberedLine>,
) -> Result<Entry> {
    let failed = |id: String, line: Option<Line>, failure: Failure| {
        Ok(Entry { id, line, correction: Correction::failed(failure), events: Vec::new() })
    };
    let line = match line?.parse::<Line>() {
        Ok(line) => line,
        Err((id, failure)) => return failed(id, None, failure),
    };
    let path: PathBuf = root.join(&line.image);
    let image = match read_image(path).await {
        Ok(image) => Bytes::from(image),
        Err(failure) => return failed(line.id.clone(), Some(line), failure),
    };
    let asked = request(arguments, image, line.prompt.clone(), &line.response);
    let (correction, events) = correct(corrections, asked, |_| Ok(())).await?;
    Ok(Entry { id: line.id.clone(), line: Some(line), correction, events })
}
