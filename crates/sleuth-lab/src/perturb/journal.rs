use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sleuth_chat::Usage;

use super::{Edit, Outcome};
use crate::data::MAX_LINE_BYTES;

/// Every finished task, a line each, written as it ends; a run that was stopped goes on from it.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    done: HashMap<(String, Edit), Outcome>,
    usage: Usage,
}

/// What must be the same when a run goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    /// Of the prompts' wording.
    pub(super) prompts: u32,
    pub(super) model: String,
    pub(super) temperature: f32,
    pub(super) seed: u64,
    /// BLAKE3 of the input's `data.jsonl`.
    pub(super) data: String,
}

#[derive(Serialize, Deserialize)]
struct Line {
    id: String,
    edit: Edit,
    outcome: Outcome,
    usage: Usage,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Reading or writing failed.
    #[error("reading or writing failed")]
    Io(#[from] io::Error),
    /// It was made by other settings.
    #[error(
        "it was made from other data or by another model, temperature, seed or version of the \
         prompts; take another folder, or remove the file to start anew"
    )]
    OtherSettings,
    /// A line inside it is damaged.
    #[error("line {line} is damaged; remove it to do its task again")]
    Damaged {
        /// Which, from 1.
        line: u64,
    },
}

// === impl Journal ===

impl Journal {
    /// Opens or starts a journal. A last line without an end, as a killed process leaves it, is cut
    /// off: its task is done again.
    pub(super) fn open(path: &Path, header: &Header) -> Result<Self, JournalError> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let mut journal =
            Self { file: file.try_clone()?, done: HashMap::new(), usage: Usage::default() };
        let whole = journal.read(&mut BufReader::new(&mut file), header)?;
        file.set_len(whole)?;
        file.seek(SeekFrom::Start(whole))?;
        if whole == 0 {
            journal.append(header)?;
        }
        Ok(journal)
    }

    /// Takes in what is there; returns the bytes of its whole lines.
    fn read(&mut self, source: &mut impl BufRead, header: &Header) -> Result<u64, JournalError> {
        let (mut whole, mut buffer, mut line) = (0, Vec::new(), 0);
        loop {
            buffer.clear();
            line += 1;
            let read =
                source.by_ref().take(2 * MAX_LINE_BYTES as u64).read_until(b'\n', &mut buffer)?;
            if buffer.last() != Some(&b'\n') {
                return Ok(whole);
            }
            whole += read as u64;
            if line == 1 {
                let found: Option<Header> = serde_json::from_slice(&buffer).ok();
                if found.as_ref() != Some(header) {
                    return Err(JournalError::OtherSettings);
                }
                continue;
            }
            let Ok(Line { id, edit, outcome, usage }) = serde_json::from_slice(&buffer) else {
                return Err(JournalError::Damaged { line });
            };
            self.usage += usage;
            self.done.insert((id, edit), outcome);
        }
    }

    pub(super) fn outcome(&self, id: &str, edit: Edit) -> Option<&Outcome> {
        self.done.get(&(id.to_owned(), edit))
    }

    /// What all of it cost, earlier runs included.
    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }

    /// Writes one finished task down.
    pub(super) fn finish(
        &mut self,
        id: &str,
        edit: Edit,
        outcome: Outcome,
        usage: Usage,
    ) -> Result<(), JournalError> {
        let line = Line { id: id.to_owned(), edit, outcome, usage };
        self.append(&line)?;
        self.usage += usage;
        self.done.insert((line.id, edit), line.outcome);
        Ok(())
    }

    fn append(&mut self, line: &impl Serialize) -> Result<(), JournalError> {
        let mut bytes = serde_json::to_vec(line).map_err(io::Error::other)?;
        bytes.push(b'\n');
        self.file.write_all(&bytes)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Dropped;
    use super::*;
    use crate::data::Taxonomy;

    fn header() -> Header {
        Header {
            prompts: 1,
            model: "m".to_owned(),
            temperature: 0.7,
            seed: 1,
            data: "digest".to_owned(),
        }
    }

    fn usage() -> Usage {
        Usage { prompt_tokens: 10, completion_tokens: 5, requests: 1 }
    }

    #[test]
    fn a_journal_goes_on_and_drops_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let counting = Edit::Caption(Taxonomy::Counting);
        let mut journal = Journal::open(&path, &header()).unwrap();
        journal.finish("a", counting, Outcome::Kept("x".to_owned()), usage()).unwrap();
        journal.finish("b", Edit::Answer, Outcome::Dropped(Dropped::StillValid), usage()).unwrap();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], b"{\"id\": \"c\""].concat()).unwrap();

        let mut journal = Journal::open(&path, &header()).unwrap();
        assert_eq!(journal.outcome("a", counting), Some(&Outcome::Kept("x".to_owned())));
        assert_eq!(journal.outcome("c", counting), None);
        assert_eq!(journal.usage().prompt_tokens, 20);
        assert_eq!(fs::read(&path).unwrap(), whole);
        journal.finish("c", counting, Outcome::Dropped(Dropped::Unchanged), usage()).unwrap();
        drop(journal);
        let journal = Journal::open(&path, &header()).unwrap();
        assert!(journal.outcome("c", counting).is_some() && journal.usage().requests == 3);
    }

    #[test]
    fn other_settings_and_damage_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        Journal::open(&path, &header()).unwrap();
        let other = Header { model: "n".to_owned(), ..header() };
        assert!(matches!(Journal::open(&path, &other), Err(JournalError::OtherSettings)));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}nonsense\n")).unwrap();
        assert!(matches!(Journal::open(&path, &header()), Err(JournalError::Damaged { line: 2 })));
    }
}
