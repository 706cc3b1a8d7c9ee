use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;

use crate::arguments::{ConfigAction, ConfigArguments, ConfigFormat};
use crate::{output, settings};

pub(super) fn run(arguments: &ConfigArguments) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    match &arguments.action {
        ConfigAction::Print { config, format, documented, flags } => {
            let resolved = settings::resolve(config.as_deref(), flags)?;
            match format {
                ConfigFormat::Toml => {
                    write!(out, "{}", settings::toml(&resolved.effective, *documented))?;
                }
                ConfigFormat::Json => {
                    output::json_line(&mut out, &settings::json(&resolved.effective))?;
                }
            }
        }
        ConfigAction::Check { file } => {
            settings::check_file(file)?;
            writeln!(out, "{} is valid", file.display())?;
        }
        ConfigAction::Docs => write!(out, "{}", settings::markdown())?,
    }
    Ok(ExitCode::SUCCESS)
}
