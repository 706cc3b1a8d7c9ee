use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use futures::StreamExt as _;
use indicatif::ProgressBar;
use sleuth_core::{Correction, GuidanceLevel};
use sleuth_lab::correction::{CorrectionReport, Judge, Tally};
use sleuth_lab::data::{Record, Records};
use sleuth_service::Corrections;

use super::{compose, correct, request};
use crate::arguments::{CorrectArguments, Format};
use crate::commands::lines::IN_FLIGHT;
use crate::commands::runtime;
use crate::output::{self, Table};

/// Corrects a folder of scenes at each level of guidance, and judges by what is true.
pub(super) fn run(arguments: &CorrectArguments, folder: &Path) -> Result<ExitCode> {
    let most = usize::try_from(arguments.count.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let mut judge = Judge::new();
    let mut records = Vec::new();
    for record in Records::open(folder)? {
        let record = record?;
        judge.learn(&record);
        if records.len() < most {
            records.push(record);
        }
    }
    let bar = output::progress(Some((records.len() * arguments.levels.len()) as u64), "corrected");
    let report = runtime()?.block_on(async {
        let service = compose(arguments).await?;
        let corrections = service.corrections().context("the service corrects nothing")?;
        let mut report = CorrectionReport::default();
        for &level in &arguments.levels {
            let level = GuidanceLevel::from(level);
            let tally =
                measure(corrections, arguments, folder, level, (&judge, &records), &bar).await?;
            report.add(level, tally);
        }
        anyhow::Ok(report)
    })?;
    bar.finish_and_clear();
    if let Some(path) = &arguments.report {
        fs::write(path, report.markdown()).with_context(|| path.display().to_string())?;
    }
    print(&report, arguments.format)?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(
    corrections: &Corrections,
    arguments: &CorrectArguments,
    folder: &Path,
    level: GuidanceLevel,
    (judge, records): (&Judge, &[Record]),
    bar: &ProgressBar,
) -> Result<Tally> {
    let mut tally = Tally::default();
    let corrected = futures::stream::iter(records)
        .map(|record| one(corrections, arguments, folder, level, record))
        .buffered(IN_FLIGHT);
    let mut corrected = std::pin::pin!(corrected);
    let mut next = records.iter();
    while let Some(correction) = corrected.next().await {
        let correction = correction?;
        let record = next.next().context("more corrections than records")?;
        // A response that could not even be scored would leave a hole in the figures.
        let used = match &correction.outcome {
            Ok(used) => used,
            Err(failure) => {
                return Err(anyhow!(failure.clone()).context(format!("record `{}`", record.id)));
            }
        };
        let judgement = judge.judge(record, &used.response)?;
        tally.add(&correction, &judgement);
        bar.inc(1);
    }
    Ok(tally)
}

async fn one(
    corrections: &Corrections,
    arguments: &CorrectArguments,
    folder: &Path,
    level: GuidanceLevel,
    record: &Record,
) -> Result<Correction> {
    let path = folder.join(&record.image);
    let image = fs::read(&path).with_context(|| path.display().to_string())?;
    let prompt = Some(record.prompt.clone());
    let mut asked = request(arguments, image.into(), prompt, &record.response);
    asked.guidance = level;
    Ok(correct(corrections, asked, |_| Ok(())).await?.0)
}

fn print(report: &CorrectionReport, format: Format) -> Result<()> {
    let mut out = io::stdout().lock();
    if format == Format::Json {
        let levels: serde_json::Map<_, _> = report
            .levels
            .iter()
            .map(|(level, tally)| Ok(((*level).to_owned(), serde_json::to_value(tally)?)))
            .collect::<Result<_>>()?;
        return output::json_line(&mut out, &levels);
    }
    let mut table =
        Table::new(&["", "responses", "tried", "win/tie/loss", "deletions", "false", "true"]);
    for (level, tally) in &report.levels {
        let (made, cut) = (tally.repaired, tally.deleted);
        table.row(vec![
            (*level).to_owned(),
            tally.responses.to_string(),
            tally.tried.to_string(),
            format!("{}/{}/{}", made.win, made.tie, made.loss),
            format!("{}/{}/{}", cut.win, cut.tie, cut.loss),
            format!("{} -> {}", tally.false_before, tally.false_after),
            format!("{} -> {}", tally.true_before, tally.true_after),
        ]);
    }
    Ok(write!(out, "{table}")?)
}
