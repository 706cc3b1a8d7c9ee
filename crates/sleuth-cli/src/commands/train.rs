use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::json;
use sleuth_lab::train::{Progress, Recipe, Run, export};

use crate::arguments::TrainArguments;
use crate::output;

/// Steps between lines of the log.
const LOG_EVERY: u64 = 20;

pub(super) fn run(arguments: &TrainArguments) -> Result<ExitCode> {
    let recipe = match &arguments.recipe {
        Some(path) => {
            let text =
                fs::read_to_string(path).with_context(|| format!("--recipe {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("--recipe {}", path.display()))?
        }
        None => Recipe::mini(),
    };
    let mut run = Run::open(&arguments.run, &recipe)?;
    let log = OpenOptions::new().create(true).append(true).open(arguments.run.join("log.jsonl"))?;
    let mut log = BufWriter::new(log);
    let bar = output::progress(Some(run.steps_left()), "steps");
    let budget = arguments.max_steps.unwrap_or(u64::MAX);
    let mut window = Window::default();
    run.advance(budget, arguments.checkpoint_every, &mut |progress| {
        bar.inc(1);
        window.add(progress);
        if progress.step % LOG_EVERY == 0 || progress.step == progress.steps {
            let line = window.take();
            bar.set_message(format!(
                "{} {}/{} loss {:.4} accuracy {:.3}",
                progress.kind.name(),
                progress.step,
                progress.steps,
                line.0,
                line.1
            ));
            // The log is for people; a full disk must not end a run whose checkpoint went well.
            drop(write_line(&mut log, progress, line));
        }
    })?;
    bar.finish_and_clear();
    if !run.is_done() {
        writeln!(io::stdout(), "stopped with {} steps left; run again to go on", run.steps_left())?;
        return Ok(ExitCode::SUCCESS);
    }
    export(&run, &arguments.out)?;
    writeln!(io::stdout(), "trained; wrote {}", arguments.out.display())?;
    Ok(ExitCode::SUCCESS)
}

/// Means since the last line of the log.
#[derive(Default)]
struct Window {
    loss: f64,
    accuracy: f64,
    steps: u64,
}

impl Window {
    fn add(&mut self, progress: &Progress) {
        self.loss += progress.loss;
        self.accuracy += progress.accuracy;
        self.steps += 1;
    }

    /// Mean loss and accuracy.
    fn take(&mut self) -> (f64, f64) {
        let n = self.steps.max(1) as f64;
        let means = (self.loss / n, self.accuracy / n);
        *self = Self::default();
        means
    }
}

fn write_line(
    log: &mut impl Write,
    progress: &Progress,
    (loss, accuracy): (f64, f64),
) -> Result<()> {
    let line = json!({
        "stage": progress.kind.name(), "step": progress.step, "steps": progress.steps,
        "loss": loss, "accuracy": accuracy, "gradient_norm": progress.gradient_norm,
        "learning_rate": progress.learning_rate,
    });
    output::json_line(log, &line)?;
    log.flush()?;
    Ok(())
}
