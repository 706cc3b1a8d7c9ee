use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use sleuth_models::checkpoint::{Merged, write_merged};

use crate::arguments::{Format, MergeArguments};
use crate::compose;
use crate::output::{self, Table};

/// What `--format json` prints.
#[derive(Serialize)]
struct Report<'a> {
    out: &'a Path,
    tau: f64,
    #[serde(flatten)]
    merged: &'a Merged,
}

pub(super) fn run(arguments: &MergeArguments) -> Result<ExitCode> {
    let model = arguments.model();
    let folder = compose::model_folder(&model)?;
    let options = compose::load_options(&model, &folder)?;
    ensure!(
        options.adapter.is_some(),
        "{} has no `adapter` folder; name the adapter with --adapter DIR",
        folder.display()
    );
    let merged = write_merged(&folder, &options, &arguments.out)
        .with_context(|| format!("merge {}", folder.display()))?;
    let mut out = io::stdout().lock();
    if arguments.format == Format::Json {
        let report = Report { out: &arguments.out, tau: arguments.tau, merged: &merged };
        output::json_line(&mut out, &report)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["", arguments.out.display().to_string().as_str()]);
    table.row(vec!["tau".to_owned(), arguments.tau.to_string()]);
    table.row(vec!["tensors".to_owned(), merged.tensors.to_string()]);
    table.row(vec!["changed by the adapter".to_owned(), merged.merged.to_string()]);
    table.row(vec!["bytes".to_owned(), merged.bytes.to_string()]);
    table.row(vec!["files".to_owned(), merged.files.join(", ")]);
    write!(out, "{table}")?;
    Ok(ExitCode::SUCCESS)
}
