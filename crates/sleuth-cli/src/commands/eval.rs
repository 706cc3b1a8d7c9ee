mod backbone;
mod print;
mod scoring;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use sleuth_lab::data::Records;
use sleuth_lab::eval::{
    Calibration, Evaluation, Page, Row, ScoreTable, correlate, markdown, page, row,
};

use super::runtime;
use crate::arguments::{EvalArguments, Vision};
use crate::output;
use crate::{baseline, compose};
use scoring::Looking;

pub(super) fn run(arguments: &EvalArguments) -> Result<ExitCode> {
    if let Some(table) = &arguments.correlate {
        let fits = correlate(&read_table(table)?).with_context(|| table.display().to_string())?;
        print::fits(&fits, arguments.format)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(data) = &arguments.data else { bail!("give --data DIR, or --correlate FILE") };
    if !arguments.backbone.is_empty() {
        backbone::run(arguments, data)?;
        return Ok(ExitCode::SUCCESS);
    }
    measure(arguments, data)?;
    Ok(ExitCode::SUCCESS)
}

fn measure(arguments: &EvalArguments, data: &Path) -> Result<()> {
    let looking = if arguments.vision == Vision::Blank { Looking::Blank } else { Looking::Seeing };
    let mut scored = score(arguments, &arguments.model, data, looking)?;
    if let Some(path) = &arguments.baseline {
        baseline::write(path, &scored.baseline)?;
    }
    let calibration =
        arguments.calibrate.then(|| calibrate(arguments, &scored.evaluation)).transpose()?;
    if let Some(calibration) = &calibration {
        scored.threshold = calibration.threshold;
    }
    let report = scored.evaluation.report(scored.threshold);
    let rows = rows(arguments, data, &scored)?;
    if let Some(path) = &arguments.html {
        let shown = Page {
            title: "Sleuth: token rewards",
            rows: &rows,
            report: &report,
            calibration: calibration.as_ref(),
            items: arguments.html_items,
        };
        let html = page(&shown, &scored.evaluation, |image| fs::read(data.join(image)).ok());
        write(path, &html)?;
    }
    if let Some(path) = &arguments.markdown {
        write(path, &markdown(&rows, &report))?;
    }
    if let Some(calibration) = calibration.as_ref().filter(|_| arguments.write_threshold) {
        write_threshold(arguments, calibration)?;
    }
    print::report(&report, &rows, calibration.as_ref(), arguments.format)
}

fn score(
    arguments: &EvalArguments,
    model: &crate::arguments::ModelArguments,
    folder: &Path,
    looking: Looking,
) -> Result<scoring::ScoredFolder> {
    let total = Records::open(folder)?.count() as u64;
    let bar = output::progress(Some(total), "scored");
    let scored =
        runtime()?.block_on(scoring::folder(model, arguments.engine, folder, looking, &bar));
    bar.finish_and_clear();
    scored
}

/// The threshold is chosen on validation data, so that what is reported was not chosen by.
fn calibrate(arguments: &EvalArguments, measured: &Evaluation) -> Result<Calibration> {
    let found = if let Some(folder) = &arguments.validation {
        score(arguments, &arguments.model, folder, Looking::Seeing)?.evaluation.calibration()
    } else {
        output::note("chosen on the measured data itself; give --validation DIR for another");
        measured.calibration()
    };
    found.ok_or_else(|| anyhow!("no responses to calibrate on"))
}

/// The table of comparison.
fn rows(
    arguments: &EvalArguments,
    data: &Path,
    scored: &scoring::ScoredFolder,
) -> Result<Vec<Row>> {
    let report = scored.evaluation.report(scored.threshold);
    let name = if arguments.vision == Vision::Blank { "blind" } else { "this model" };
    let mut rows = vec![row(name, &report)];
    if arguments.vision == Vision::Both {
        let blind = score(arguments, &arguments.model, data, Looking::Blank)?;
        rows.push(row("blind", &blind.evaluation.report(scored.threshold)));
    }
    if let Some(adapter) = &arguments.naive {
        let model = arguments.model.with_adapter(adapter);
        let naive = score(arguments, &model, data, Looking::Seeing)?;
        let mut evaluation = Evaluation::of_last_tokens();
        for judged in naive.evaluation.judged() {
            evaluation.add(judged.record.clone(), judged.tokens.clone());
        }
        rows.push(row("naive", &evaluation.report(naive.threshold)));
    }
    rows.extend(Row::always_good(&report));
    rows.extend(Row::paper());
    Ok(rows)
}

fn read_table(path: &Path) -> Result<ScoreTable> {
    let bytes = fs::read(path).with_context(|| format!("--correlate {}", path.display()))?;
    let is_json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
    let table = if is_json { ScoreTable::from_json(&bytes) } else { ScoreTable::from_csv(&bytes) };
    table.with_context(|| path.display().to_string())
}

/// Puts the threshold into the model folder's `reward_config.json`, all else as it is.
fn write_threshold(arguments: &EvalArguments, calibration: &Calibration) -> Result<()> {
    let path = compose::model_folder(&arguments.model)?.join("reward_config.json");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut config: Value =
        serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    config["threshold"] = json!(calibration.threshold);
    write(&path, &format!("{config:#}\n"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}
