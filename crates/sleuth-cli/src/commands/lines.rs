//! JSONL files in and out: bounded memory, results in the order of the lines, resumable.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use sleuth_core::{ErrorClass, Failure, Reason};

/// Items under way at once: enough for a batch to form while another runs.
pub(super) const IN_FLIGHT: usize = 64;
/// Longest line read; the rest of a longer one is skipped and the line fails.
const MAX_LINE_BYTES: usize = 1 << 20;
/// Lines whose results are written to disk at once.
pub(super) const FLUSH_EVERY: u64 = 64;

pub(super) async fn read_image(path: PathBuf) -> Result<Vec<u8>, Failure> {
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
pub(super) fn output_of(out: Option<&Path>, resume: bool) -> Result<(Box<dyn Write>, u64)> {
    let Some(path) = out else {
        return Ok((Box::new(BufWriter::new(io::stdout())), 0));
    };
    if !path.exists() {
        let file = File::create(path).with_context(|| format!("--out {}", path.display()))?;
        return Ok((Box::new(BufWriter::new(file)), 0));
    }
    ensure!(resume, "{} exists; pass --resume to go on with it", path.display());
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
pub(super) struct Lines {
    reader: Box<dyn BufRead>,
    number: u64,
}

pub(super) struct NumberedLine {
    number: u64,
    text: Result<String, Failure>,
}

// === impl Lines ===

impl Lines {
    /// Opens a file that `flag` names, or standard input for `-`.
    pub(super) fn open(path: &Path, flag: &str) -> Result<Self> {
        let reader: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::new(io::stdin()))
        } else {
            let file = File::open(path).with_context(|| format!("{flag} {}", path.display()))?;
            Box::new(BufReader::new(file))
        };
        Ok(Self { reader, number: 0 })
    }

    /// Passes over lines that an earlier run has scored.
    pub(super) fn pass_over(&mut self, lines: u64) -> Result<()> {
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

// === impl NumberedLine ===

impl NumberedLine {
    /// What the line holds, or a name for the line and why it does not.
    pub(super) fn parse<T: DeserializeOwned>(self) -> Result<T, (String, Failure)> {
        let Self { number, text } = self;
        let parsed = text.and_then(|text| {
            serde_json::from_str(&text).map_err(|e| {
                let detail = format!("line {number} cannot be read: {e}");
                Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_INVALID, detail)
            })
        });
        parsed.map_err(|failure| (format!("line {number}"), failure))
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
        let lines: Vec<_> = Lines::open(&path, "--jsonl").unwrap().map(Result::unwrap).collect();
        let numbers: Vec<_> = lines.iter().map(|l| (l.number, l.text.is_ok())).collect();
        assert_eq!(numbers, [(1, true), (2, false), (4, true)]);
    }
}
