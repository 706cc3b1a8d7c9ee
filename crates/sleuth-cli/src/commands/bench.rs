use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use sleuth_lab::bench::{Setup, Timed, time};

use crate::arguments::{BenchArguments, Format};
use crate::output::{self, Table};
use crate::{compose, environment};

pub(super) fn run(arguments: &BenchArguments) -> Result<ExitCode> {
    let folder = compose::model_folder(&arguments.model)?;
    let options = compose::load_options(&arguments.model, &folder)?;
    let setup = Setup {
        threads: arguments.threads.unwrap_or_else(environment::cores),
        kv: arguments.kv.into(),
        repeat: arguments.repeat,
    };
    let timed = time(&folder, &options, &arguments.inputs, setup, arguments.dump.as_deref())?;
    print(&timed, arguments.format)?;
    Ok(ExitCode::SUCCESS)
}

fn print(timed: &Timed, format: Format) -> Result<()> {
    let mut out = io::stdout().lock();
    if format == Format::Json {
        return output::json_line(&mut out, timed);
    }
    let mut table = Table::new(&["repetition", "seconds", "GFLOP/s"]);
    for (i, seconds) in timed.seconds.iter().enumerate() {
        let rate = timed.gflops / seconds;
        table.row(vec![(i + 1).to_string(), format!("{seconds:.4}"), format!("{rate:.1}")]);
    }
    writeln!(
        out,
        "{table}{:.2} GFLOP per repetition, {} MiB at most",
        timed.gflops,
        timed.peak_bytes >> 20
    )?;
    Ok(())
}
