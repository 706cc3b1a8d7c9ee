use std::io;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::arguments::ScenesArguments;
use crate::output;

pub(super) fn run(arguments: &ScenesArguments) -> Result<ExitCode> {
    let ScenesArguments { split, seed, count, out } = arguments;
    let bar = output::progress(Some(*count), "drawn");
    let summary =
        sleuth_lab::scenes::write_folder(*split, *seed, *count, out, |done| bar.set_position(done))
            .with_context(|| format!("write {}", out.display()))?;
    bar.finish_and_clear();
    output::json_line(&mut io::stdout().lock(), &summary)?;
    Ok(ExitCode::SUCCESS)
}
