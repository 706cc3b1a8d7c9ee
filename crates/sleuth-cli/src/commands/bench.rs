mod load;
mod simulate;

use std::io::{self, Write};
use std::num::{NonZeroU8, NonZeroUsize};
use std::process::ExitCode;

use anyhow::Result;
use sleuth_lab::bench::generate::{GenerateSetup, Generated, time_generation};
use sleuth_lab::bench::mixed::{self, Predicted};
use sleuth_lab::bench::{Setup, Timed, time};

use crate::arguments::{BenchArguments, Format};
use crate::output::{self, Table};
use crate::{compose, environment};

/// Of the random batches.
const SEED: u64 = 7;

pub(super) fn run(arguments: &BenchArguments) -> Result<ExitCode> {
    if let Some(target) = &arguments.target {
        return load::run(target, &arguments.load, arguments.format);
    }
    if arguments.simulate {
        return simulate::simulate(arguments);
    }
    let folder = compose::model_folder(&arguments.model)?;
    let options = compose::load_options(&arguments.model, &folder)?;
    let threads = arguments.threads.unwrap_or_else(environment::cores);
    let Some(inputs) = &arguments.inputs else {
        let batches = arguments.mixed.unwrap_or(0);
        let predicted = mixed::predict(&folder, &options, threads, batches, SEED)?;
        return print_mixed(&predicted, arguments.format);
    };
    if let Some(tokens) = arguments.generate.and_then(NonZeroUsize::new) {
        let candidates = NonZeroU8::new(arguments.candidates).map_or(NonZeroUsize::MIN, Into::into);
        let (kv, repeat) = (arguments.kv.into(), arguments.repeat);
        let setup = GenerateSetup { threads, kv, repeat, candidates, tokens };
        let generated = time_generation(&folder, &options, inputs, setup)?;
        return print_generated(&generated, arguments.format);
    }
    let setup = Setup {
        threads,
        kv: arguments.kv.into(),
        repeat: arguments.repeat,
        chunk: arguments.chunk,
    };
    let timed = time(&folder, &options, inputs, setup, arguments.dump.as_deref())?;
    print(&timed, arguments.format)?;
    Ok(ExitCode::SUCCESS)
}

fn print_mixed(predicted: &Predicted, format: Format) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    if format == Format::Json {
        output::json_line(&mut out, predicted)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Predicted { batches, median_error, p90_error, predicted_seconds, measured_seconds } =
        predicted;
    writeln!(
        out,
        "{batches} batches: predicted {predicted_seconds:.2} s, took {measured_seconds:.2} s; \
         a batch was off by {:.1} % (median), {:.1} % (nine of ten at most)",
        100.0 * median_error,
        100.0 * p90_error
    )?;
    Ok(ExitCode::SUCCESS)
}

fn print_generated(generated: &Generated, format: Format) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    if format == Format::Json {
        output::json_line(&mut out, generated)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Generated { seconds, first_seconds, candidates, tokens, groups, peak_bytes, .. } =
        generated;
    let mut table = Table::new(&["repetition", "seconds", "to first token", "later tokens/s"]);
    let later = (groups * candidates * (tokens - 1)) as f64;
    for (i, (all, first)) in seconds.iter().zip(first_seconds).enumerate() {
        let rate = later / (all - first);
        let cells = [format!("{all:.4}"), format!("{first:.4}"), format!("{rate:.1}")];
        table.row([vec![(i + 1).to_string()], cells.to_vec()].concat());
    }
    writeln!(
        out,
        "{table}{groups} x {candidates} candidates of {tokens} tokens, {} MiB at most",
        peak_bytes >> 20
    )?;
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
