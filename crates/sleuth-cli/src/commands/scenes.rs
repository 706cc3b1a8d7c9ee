use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sleuth_lab::scenes::{JudgedSentence, Scene, Statements, judged_sentences, write_folder};

use super::lines::Lines;
use crate::arguments::{DrawArguments, ScenesArguments};
use crate::output;

/// What was said of a scene.
#[derive(Debug, Deserialize)]
struct Said {
    group_id: String,
    response: String,
}

/// How it stands to the truth.
#[derive(Debug, Serialize)]
struct Judged<'a> {
    group_id: &'a str,
    #[serde(flatten)]
    counts: Statements,
    sentences: Vec<JudgedSentence>,
}

pub(super) fn run(arguments: &ScenesArguments) -> Result<ExitCode> {
    match (&arguments.judge, &arguments.draw) {
        (Some(path), _) => judge(path)?,
        (None, Some(arguments)) => draw(arguments)?,
        (None, None) => bail!("pass --judge, or --split, --count and --out"),
    }
    Ok(ExitCode::SUCCESS)
}

fn draw(arguments: &DrawArguments) -> Result<()> {
    let DrawArguments { split, seed, count, out } = arguments;
    let bar = output::progress(Some(*count), "drawn");
    let summary = write_folder(*split, *seed, *count, out, |done| bar.set_position(done))
        .with_context(|| format!("write {}", out.display()))?;
    bar.finish_and_clear();
    output::json_line(&mut io::stdout().lock(), &summary)
}

fn judge(path: &Path) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for line in Lines::open(path, "--judge")? {
        let said: Said = line?.parse().map_err(|(line, failure)| {
            anyhow::Error::from(failure).context(format!("--judge {}: {line}", path.display()))
        })?;
        let scene = Scene::of_group(&said.group_id)?;
        let sentences: Vec<_> = judged_sentences(&scene, &said.response).collect();
        let counts = sentences.iter().copied().collect();
        output::json_line(&mut out, &Judged { group_id: &said.group_id, counts, sentences })?;
    }
    out.flush()?;
    Ok(())
}
