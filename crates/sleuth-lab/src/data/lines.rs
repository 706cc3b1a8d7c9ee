use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use super::{InvalidRecord, Record};

/// The file of a data folder that holds its records.
pub const DATA_FILE: &str = "data.jsonl";
/// Longest line, in bytes.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// Reads records one by one; holds one line at a time. Blank lines are skipped.
///
/// After an error of reading, or a line that is too long, it ends; after a bad record it goes on.
#[derive(Debug)]
pub struct Records<R> {
    source: R,
    line: u64,
    buffer: Vec<u8>,
    ended: bool,
}

/// Why a line gives no record. Never holds the line's content.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file cannot be opened.
    #[error("cannot open `{path}`")]
    Open {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Reading or writing failed.
    #[error("line {line}: reading or writing failed")]
    Io {
        /// Which line, from 1.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// The line is too long.
    #[error("line {line}: longer than {MAX_LINE_BYTES} bytes")]
    TooLong {
        /// Which line, from 1.
        line: u64,
    },
    /// The line is no JSON record.
    #[error("line {line}, column {column}: not a record ({kind})")]
    Syntax {
        /// Which line, from 1.
        line: u64,
        /// Where on it, from 1.
        column: usize,
        /// What kind of defect: syntax, type or field, early end.
        kind: &'static str,
    },
    /// The record breaks a rule.
    #[error("line {line}: the record breaks a rule")]
    Invalid {
        /// Which line, from 1.
        line: u64,
        /// Which rule.
        source: InvalidRecord,
    },
}

// === impl Records ===

impl Records<BufReader<File>> {
    /// Opens the records of a data folder.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join(DATA_FILE);
        File::open(&path)
            .map(|file| Self::new(BufReader::new(file)))
            .map_err(|source| DataError::Open { path: path.display().to_string(), source })
    }
}

impl<R: BufRead> Records<R> {
    /// Reads from any source of lines.
    pub fn new(source: R) -> Self {
        Self { source, line: 0, buffer: Vec::new(), ended: false }
    }

    /// Reads the next line into the buffer, without its end; false at the end of the source.
    fn advance(&mut self) -> Result<bool, DataError> {
        self.line += 1;
        let line = self.line;
        self.buffer.clear();
        let mut bounded = (&mut self.source).take(MAX_LINE_BYTES as u64 + 1);
        let read = bounded
            .read_until(b'\n', &mut self.buffer)
            .map_err(|source| DataError::Io { line, source })?;
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
        }
        if self.buffer.len() > MAX_LINE_BYTES {
            return Err(DataError::TooLong { line });
        }
        Ok(read > 0)
    }

    fn parse(&self) -> Result<Record, DataError> {
        let line = self.line;
        let record: Record = serde_json::from_slice(&self.buffer).map_err(|e| {
            let kind = match e.classify() {
                serde_json::error::Category::Data => "wrong type or missing field",
                serde_json::error::Category::Eof => "ends early",
                _ => "syntax",
            };
            DataError::Syntax { line, column: e.column(), kind }
        })?;
        record.validate().map_err(|source| DataError::Invalid { line, source })?;
        Ok(record)
    }
}

impl<R: BufRead> Iterator for Records<R> {
    type Item = Result<Record, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.advance() {
                Ok(true) if self.buffer.trim_ascii().is_empty() => {}
                Ok(true) => return Some(self.parse()),
                Ok(false) => self.ended = true,
                Err(e) => {
                    self.ended = true;
                    return Some(Err(e));
                }
            }
        }
        None
    }
}

/// Writes records as lines; `first_line` numbers errors. Returns the number written.
pub fn write_records<'a>(
    out: &mut impl Write,
    records: impl IntoIterator<Item = &'a Record>,
    first_line: u64,
) -> Result<u64, DataError> {
    let mut line = first_line;
    for record in records {
        record.validate().map_err(|source| DataError::Invalid { line, source })?;
        let mut text = serde_json::to_vec(record)
            .map_err(|e| DataError::Io { line, source: io::Error::other(e) })?;
        text.push(b'\n');
        out.write_all(&text).map_err(|source| DataError::Io { line, source })?;
        line += 1;
    }
    Ok(line - first_line)
}

#[cfg(test)]
mod tests {
    use super::super::Label;
    use super::*;

    fn record() -> Record {
        Record {
            id: "a".to_owned(),
            image: "images/a.png".to_owned(),
            prompt: "Describe the image.".to_owned(),
            response: "A red star.".to_owned(),
            labels: vec![Label {
                start: 2,
                end: 5,
                good: false,
                taxonomy: Some("visual_attribute".to_owned()),
                source: Some("scenes".to_owned()),
            }],
            group_id: Some("g".to_owned()),
            split: Some("test".to_owned()),
        }
    }

    #[test]
    fn records_read_back_as_written() {
        let mut bytes = Vec::new();
        assert_eq!(write_records(&mut bytes, &[record(), record()], 1).unwrap(), 2);
        let back: Vec<Record> = Records::new(&bytes[..]).map(Result::unwrap).collect();
        assert_eq!(back, [record(), record()]);
    }

    #[test]
    fn a_bad_line_is_named_and_the_next_is_read() {
        let good = serde_json::to_string(&record()).unwrap();
        let outside = good.replace("\"end\":5", "\"end\":50");
        let text = format!("{good}\n\n{{\"id\": 3}}\n{outside}\n{good}");
        let got: Vec<Result<Record, DataError>> = Records::new(text.as_bytes()).collect();
        assert_eq!(got.len(), 4);
        assert!(got[0].is_ok() && got[3].is_ok());
        assert!(matches!(got[1], Err(DataError::Syntax { line: 3, .. })), "{:?}", got[1]);
        assert!(matches!(
            got[2],
            Err(DataError::Invalid { line: 4, source: InvalidRecord::SpanOutside { .. } })
        ));
    }

    #[test]
    fn a_line_without_end_is_refused_at_the_limit() {
        let mut records = Records::new(BufReader::new(io::repeat(b'x')));
        assert!(matches!(records.next(), Some(Err(DataError::TooLong { line: 1 }))));
        assert!(records.next().is_none());
        assert!(records.buffer.capacity() <= 4 * MAX_LINE_BYTES);
    }

    #[test]
    fn an_error_never_shows_the_line() {
        let mut records = Records::new(&b"{\"id\": \"secret\", \"image\": 5}"[..]);
        let shown = format!("{:?}", records.next().unwrap().unwrap_err());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
