use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use serde::Serialize;
use sleuth_chat::{ChatError, Usage};

use super::journal::{Header, Journal, JournalError};
use super::task::edited;
use super::{Edit, Outcome, Perturber, prompts};
use crate::data::{DATA_FILE, DataError, Record, Records, Taxonomy, write_records};

const JOURNAL: &str = "journal.jsonl";
/// So many tasks in a row without a reply end a run.
const MOST_FAILURES: usize = 10;
/// Most bytes of what a checker is told of an image.
const MOST_KNOWN: usize = 4000;

/// A folder to be perturbed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A data folder; its clean records are perturbed.
    pub data: PathBuf,
    /// Where the new data folder goes, and the journal while it is made.
    pub out: PathBuf,
    /// Of captions.
    pub taxonomies: Vec<Taxonomy>,
    /// Records taken, from the first on.
    pub most_records: u64,
    /// Tasks under way at once; at least 1.
    pub concurrency: usize,
}

/// What a run made, with what earlier runs into the same folder made.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Clean records, each in the new folder.
    pub records: u64,
    /// Records left out because they have bad spans.
    pub not_clean: u64,
    /// Edits kept, by taxonomy or `answer`.
    pub kept: BTreeMap<&'static str, u64>,
    /// Edits dropped, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Tasks without a reply; the same command tries them again.
    pub failed: u64,
    /// What the endpoint counted.
    pub usage: Usage,
}

/// Why a folder cannot be perturbed.
#[derive(Debug, thiserror::Error)]
pub enum PerturbError {
    /// The input cannot be read or breaks a rule.
    #[error("the data folder")]
    Data(#[from] DataError),
    /// Two records have one id.
    #[error("two records of the data folder have the id `{0}`")]
    SameId(String),
    /// Input and output are one folder.
    #[error("the output folder is the data folder")]
    SameFolder,
    /// An image is missing.
    #[error("the image of record `{id}` cannot be read")]
    Image {
        /// Of which record.
        id: String,
        /// Why.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("the output folder")]
    Output(#[from] io::Error),
    /// The journal cannot be used.
    #[error("`journal.jsonl` of the output folder")]
    Journal(#[from] JournalError),
    /// The endpoint does not do; what is done is kept.
    #[error("the endpoint; the same command goes on where this one stopped")]
    Chat(#[from] ChatError),
}

/// Makes every edit that the journal in `plan.out` does not have yet, then writes the new data
/// folder: clean records, each followed by its edits, images linked. `report` is told the number of
/// finished tasks and of all.
pub async fn perturb_folder(
    plan: &Plan,
    perturber: &Perturber,
    report: impl Fn(u64, u64),
) -> Result<Summary, PerturbError> {
    fs::create_dir_all(&plan.out)?;
    if fs::canonicalize(&plan.data).ok() == fs::canonicalize(&plan.out).ok() {
        return Err(PerturbError::SameFolder);
    }
    let (records, not_clean) = read(plan)?;
    let digest = blake3::hash(&fs::read(plan.data.join(DATA_FILE))?);
    let header = Header {
        prompts: prompts::VERSION,
        model: perturber.model().to_owned(),
        temperature: perturber.settings().temperature,
        seed: perturber.settings().seed,
        data: digest.to_hex().to_string(),
    };
    let mut journal = Journal::open(&plan.out.join(JOURNAL), &header)?;
    let failed = run(plan, perturber, &records, &mut journal, report).await?;
    let mut summary = Summary { not_clean, failed, usage: journal.usage(), ..Summary::default() };
    write(plan, perturber.model(), &records, &journal, &mut summary)?;
    Ok(summary)
}

/// The clean records, their images seen to be there, and the number of others.
fn read(plan: &Plan) -> Result<(Vec<Record>, u64), PerturbError> {
    let (mut records, mut not_clean, mut ids) = (Vec::new(), 0, HashSet::new());
    for record in Records::open(&plan.data)? {
        let record = record?;
        if records.len() as u64 == plan.most_records {
            break;
        }
        if !record.is_clean() {
            not_clean += 1;
            continue;
        }
        if !ids.insert(record.id.clone()) {
            return Err(PerturbError::SameId(record.id));
        }
        if let Err(source) = fs::metadata(plan.data.join(&record.image)) {
            return Err(PerturbError::Image { id: record.id, source });
        }
        records.push(record);
    }
    Ok((records, not_clean))
}

/// Does what is left to do; returns the number of tasks that got no reply.
async fn run(
    plan: &Plan,
    perturber: &Perturber,
    records: &[Record],
    journal: &mut Journal,
    report: impl Fn(u64, u64),
) -> Result<u64, PerturbError> {
    let all = || {
        let tasks = |r| Edit::of(r, &plan.taxonomies).into_iter().map(move |edit| (r, edit));
        records.iter().flat_map(tasks)
    };
    let left: Vec<(&Record, Edit)> =
        all().filter(|(r, edit)| journal.outcome(&r.id, *edit).is_none()).collect();
    let total = all().count() as u64;
    let mut done = total - left.len() as u64;
    report(done, total);
    let known = known(records);
    let mut running = futures::stream::iter(left)
        .map(|(record, edit)| {
            let known = known.get(record.image.as_str()).map_or("", String::as_str);
            async move {
                let mut cost = Usage::default();
                let outcome = perturber.perturb(record, edit, known, &mut cost).await;
                (record, edit, outcome, cost)
            }
        })
        .buffer_unordered(plan.concurrency.max(1));
    let (mut failed, mut in_a_row) = (0, 0);
    while let Some((record, edit, outcome, cost)) = running.next().await {
        match outcome {
            Ok(outcome) => {
                journal.finish(&record.id, edit, outcome, cost)?;
                in_a_row = 0;
            }
            Err(error) => {
                failed += 1;
                in_a_row += 1;
                if !error.is_retryable() || in_a_row == MOST_FAILURES {
                    return Err(error.into());
                }
            }
        }
        done += 1;
        report(done, total);
    }
    Ok(failed)
}

/// What the folder tells of each image that has a question: its captions, else its other answers.
fn known(records: &[Record]) -> HashMap<&str, String> {
    let is_question = |r: &Record| r.prompt.trim_end().ends_with('?');
    let asked: HashSet<&str> =
        records.iter().filter(|r| is_question(r)).map(|r| r.image.as_str()).collect();
    let mut known: HashMap<&str, String> = HashMap::new();
    // Captions first: where they fill the room, answers are not needed.
    let (answers, captions): (Vec<_>, Vec<_>) =
        records.iter().filter(|r| asked.contains(r.image.as_str())).partition(|r| is_question(r));
    for record in captions.into_iter().chain(answers) {
        let line = if is_question(record) {
            format!("{} {}\n", record.prompt, record.response)
        } else {
            format!("{}\n", record.response)
        };
        let text = known.entry(&record.image).or_default();
        if text.len() + line.len() <= MOST_KNOWN {
            text.push_str(&line);
        }
    }
    known
}

fn write(
    plan: &Plan,
    model: &str,
    records: &[Record],
    journal: &Journal,
    summary: &mut Summary,
) -> Result<(), PerturbError> {
    let next = plan.out.join("data.tmp");
    let mut out = BufWriter::new(File::create(&next)?);
    let mut line = 1;
    for record in records {
        link(&plan.data, &plan.out, record)?;
        let group_id = record.group_id.clone().or_else(|| Some(record.id.clone()));
        let record = Record { group_id, ..record.clone() };
        let mut lines = vec![];
        for edit in Edit::of(&record, &plan.taxonomies) {
            match journal.outcome(&record.id, edit) {
                Some(Outcome::Kept(text)) => {
                    *summary.kept.entry(edit.name()).or_default() += 1;
                    lines.push(edited(&record, edit, text, model));
                }
                Some(Outcome::Dropped(why)) => {
                    *summary.dropped.entry(why.name()).or_default() += 1;
                }
                None => {}
            }
        }
        lines.insert(0, record);
        line += write_records(&mut out, &lines, line)?;
        summary.records += 1;
    }
    out.flush()?;
    fs::rename(next, plan.out.join(DATA_FILE))?;
    Ok(())
}

/// Puts a record's image into the new folder, as a hard link where the file system has them.
fn link(from: &Path, to: &Path, record: &Record) -> Result<(), PerturbError> {
    let (from, to) = (from.join(&record.image), to.join(&record.image));
    if to.exists() {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    let done = fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(|_| ()));
    done.map_err(|source| PerturbError::Image { id: record.id.clone(), source })
}

#[cfg(test)]
mod tests;
