//! Scoring a JSONL file: bounded memory, results in the order of the lines, resumable.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::StreamExt;
use sleuth_core::{ErrorClass, Failure, Options, Reason, ScoreRequest, Scored};
use sleuth_service::{AdmissionSettings, Caller, Scorer, ServiceSettings};

use super::runtime;
use crate::arguments::ScoreArguments;
use crate::compose;
use crate::items::{FailedItem, Line, ScoredItem};
use crate::output;

/// Items under way at once: enough for a batch to form while another runs.
const IN_FLIGHT: usize = 64;
/// Longest line read; the rest of a longer one is skipped and the line fails.
const MAX_LINE_BYTES: usize = 1 << 20;
/// Lines whose results are written to disk at once.
const FLUSH_EVERY: u64 = 64;

/// One input line on its way.
struct Entry {
    id: String,
    text: String,
    verdict: Result<Scored, Failure>,
}

pub(super) fn run(arguments: &ScoreArguments, input: &Path, options: Options) -> Result<ExitCode> {
    let mut lines = Lines::open(input)?;
    let (mut out, done) = output_of(arguments)?;
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
        let composed = compose::start(&arguments.model, arguments.engine, settings).await?;
        let card = composed.service.model();
        let (service, root) = (&composed.service, &root);
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
    let NumberedLine { number, text } = line?;
    let parsed = text.and_then(|text| {
        serde_json::from_str::<Line>(&text).map_err(|e| {
            let detail = format!("line {number} is no item: {e}");
            Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_INVALID, detail)
        })
    });
    let line = match parsed {
        Ok(line) => line,
        Err(failure) => {
            return Ok(Entry {
                id: format!("line {number}"),
                text: String::new(),
                verdict: Err(failure),
            });
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

async fn read_image(path: PathBuf) -> Result<Vec<u8>, Failure> {
    let missing = |e: &dyn std::fmt::Display| {
        Failure::new(
            ErrorClass::InvalidRequest,
            Reason::IMAGE_MISSING,
            format!("cannot be read: {e}"),
        )
        .at("image")
    };
    match tokio::task::spawn_blocking(move || fs::read(path)).await {
        Ok(read) => read.map_err(|e| missing(&e)),
        Err(e) => Err(missing(&e)),
    }
}

/// The output, and how many results it holds already.
fn output_of(arguments: &ScoreArguments) -> Result<(Box<dyn Write>, u64)> {
    let Some(path) = &arguments.out else {
        return Ok((Box::new(BufWriter::new(io::stdout())), 0));
    };
    if !path.exists() {
        let file = File::create(path).with_context(|| format!("--out {}", path.display()))?;
        return Ok((Box::new(BufWriter::new(file)), 0));
    }
    ensure!(arguments.resume, "{} exists; pass --resume to go on with it", path.display());
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let (done, length) = whole_lines(&mut file)?;
    // A run that was cut off may have left half a line.
    file.set_len(length)?;
    file.seek(io::SeekFrom::End(0))?;
    Ok((Box::new(BufWriter::new(file)), done))
}

/// The number of complete lines and their length in bytes.
fn whole_lines(file: &mut File) -> Result<(u64, u64)> {
    let mut buffer = vec![0; 1 << 16];
    let (mut lines, mut length, mut position) = (0, 0, 0);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((lines, length));
        }
        for (at, _) in buffer[..read].iter().enumerate().filter(|(_, b)| **b == b'\n') {
            lines += 1;
            length = position + at as u64 + 1;
        }
        position += read as u64;
    }
}

/// Lines of bounded length with their numbers, from 1. Empty lines are passed over.
struct Lines {
    reader: Box<dyn BufRead>,
    number: u64,
}

struct NumberedLine {
    number: u64,
    text: Result<String, Failure>,
}

// === impl Lines ===

impl Lines {
    fn open(path: &Path) -> Result<Self> {
        let reader: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::new(io::stdin()))
        } else {
            let file = File::open(path).with_context(|| format!("--jsonl {}", path.display()))?;
            Box::new(BufReader::new(file))
        };
        Ok(Self { reader, number: 0 })
    }

    /// Passes over lines that an earlier run has scored.
    fn pass_over(&mut self, lines: u64) -> Result<()> {
        for _ in 0..lines {
            self.next().context("the input ended")??;
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<Option<Result<String, Failure>>> {
        let mut bytes = Vec::new();
        let limit = MAX_LINE_BYTES as u64 + 1;
        if (&mut self.reader).take(limit).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let number = self.number;
        if bytes.len() > MAX_LINE_BYTES && bytes.last() != Some(&b'\n') {
            self.reader.skip_until(b'\n')?;
            let detail = format!("line {number} is longer than {MAX_LINE_BYTES} bytes");
            return Ok(Some(Err(Failure::new(
                ErrorClass::TooLarge,
                Reason::RESPONSE_TOO_LARGE,
                detail,
            ))));
        }
        Ok(Some(String::from_utf8(bytes).map_err(|_| {
            let detail = format!("line {number} is not UTF-8");
            Failure::new(ErrorClass::InvalidRequest, Reason::RESPONSE_NOT_UTF8, detail)
        })))
    }
}

impl Iterator for Lines {
    type Item = Result<NumberedLine>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.read() {
                Ok(None) => return None,
                Ok(Some(Ok(text))) if text.trim().is_empty() => {}
                Ok(Some(text)) => return Some(Ok(NumberedLine { number: self.number, text })),
                Err(e) => return Some(Err(e.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_at_the_end_is_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        fs::write(&path, "{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"id\":").unwrap();
        assert_eq!(whole_lines(&mut File::open(path).unwrap()).unwrap(), (2, 22));
    }

    #[test]
    fn a_line_that_is_too_long_fails_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.jsonl");
        let long = "x".repeat(MAX_LINE_BYTES + 10);
        fs::write(&path, format!("one\n{long}\n\nthree\n")).unwrap();
        let lines: Vec<_> = Lines::open(&path).unwrap().map(Result::unwrap).collect();
        let numbers: Vec<_> = lines.iter().map(|l| (l.number, l.text.is_ok())).collect();
        assert_eq!(numbers, [(1, true), (2, false), (4, true)]);
    }
}
