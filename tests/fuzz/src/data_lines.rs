use std::path::{Component, Path};

use sleuth_core::ByteSpan;

use crate::data::{DataError, Label, MAX_LINE_BYTES, Record, Records, token_labels, write_records};

/// Any bytes as a `data.jsonl`: for each line an error that names it, or a record whose image lies
/// in the folder and whose labels lie on characters of the response, and which reads back as written.
pub fn data_lines(bytes: &[u8]) {
    let lines = bytes.split(|&b| b == b'\n').count() as u64;
    let mut results = 0;
    let mut named = 0;
    for result in Records::new(bytes) {
        results += 1;
        match result {
            Ok(record) => check(&record),
            Err(error) => {
                let line = line_of(&error);
                assert!(line > named && line <= lines, "{error}");
                named = line;
            }
        }
    }
    assert!(results <= lines);
}

fn check(record: &Record) {
    assert!(!record.id.is_empty() && !record.response.is_empty());
    let image = Path::new(&record.image);
    assert!(image.is_relative() && !record.image.contains('\\'));
    assert!(image.components().all(|part| !matches!(part, Component::ParentDir)));
    for &Label { start, end, .. } in &record.labels {
        let (start, end) = (start as usize, end as usize);
        assert!(record.response.get(start..end).is_some_and(|text| !text.is_empty()));
    }
    let chars: Vec<ByteSpan> = record.response.char_indices().map(span).collect();
    let good = token_labels(&chars, &record.labels);
    assert_eq!(good.len(), chars.len());
    assert_eq!(record.is_clean(), good.iter().all(|&good| good));
    let mut line = Vec::new();
    assert!(matches!(write_records(&mut line, [record], 1), Ok(1)));
    if line.len() <= MAX_LINE_BYTES {
        let back: Vec<Record> =
            Records::new(&line[..]).collect::<Result<_, _>>().expect("what it wrote");
        assert_eq!(back, std::slice::from_ref(record));
    }
}

fn span((at, char): (usize, char)) -> ByteSpan {
    let (start, end) = (at as u32, (at + char.len_utf8()) as u32);
    ByteSpan::try_new(start, end).expect("a character ends behind its start")
}

fn line_of(error: &DataError) -> u64 {
    match *error {
        DataError::Open { .. } => panic!("no file was opened"),
        DataError::Io { line, .. }
        | DataError::TooLong { line }
        | DataError::Syntax { line, .. }
        | DataError::Invalid { line, .. } => line,
    }
}
