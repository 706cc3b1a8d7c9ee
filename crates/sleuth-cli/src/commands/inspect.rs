use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use sleuth_engine::Devices;
use sleuth_models::cpu::KvType;
use sleuth_models::{ModelFolder, inspect};

use crate::arguments::{Format, InspectArguments};
use crate::compose;
use crate::output::{self, Table};

pub(super) fn run(arguments: &InspectArguments) -> Result<ExitCode> {
    let folder = compose::model_folder(&arguments.model)?;
    let options = compose::load_options(&arguments.model, &folder)?;
    if arguments.devices {
        let opened = ModelFolder::open(&folder, &options)?;
        let choice = arguments.on.choice(KvType::F16);
        let devices = Devices::find(&opened, choice).context("--gpus, --memory-share")?;
        if arguments.format == Format::Json {
            output::json_line(&mut io::stdout().lock(), &devices.listing())?;
        } else {
            write!(io::stdout(), "{}", devices.report())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let findings = inspect(&folder, &options, |config, findings| {
        if let Some(preparer) =
            findings.take("tokenizer and preprocessor", compose::preparer(&folder, config))
        {
            findings.fact("tokenizer", format!("{} tokens", preparer.tokenizer().vocab_size()));
            let preprocessor = preparer.preprocessor();
            let size = format!("{}x{} px", preprocessor.height(), preprocessor.width());
            let size = match preprocessor.tiles() {
                Some(most) => format!("up to {most} tiles of {size}"),
                None => size,
            };
            findings.fact("preprocessor", size);
        }
    });
    let mut out = io::stdout().lock();
    if arguments.format == Format::Json {
        output::json_line(&mut out, &findings.all())?;
    } else {
        let mut table = Table::new(&["", folder.display().to_string().as_str()]);
        for finding in findings.all() {
            let mark = if finding.wrong { "WRONG " } else { "" };
            table.row(vec![finding.what.to_owned(), format!("{mark}{}", finding.is)]);
        }
        write!(out, "{table}")?;
    }
    Ok(if findings.faults() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
