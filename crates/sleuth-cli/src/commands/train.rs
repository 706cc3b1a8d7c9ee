use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use sleuth_lab::train::{Progress, Recipe, Run, export};

use crate::arguments::TrainArguments;
use crate::output;

/// Steps between lines of the log.
const LOG_EVERY: u64 = 20;
/// Validation scenes that a stage is measured on while it runs.
const VALIDATION_IMAGES: u64 = 64;

pub(super) fn run(arguments: &TrainArguments) -> Result<ExitCode> {
    let recipe = recipe(arguments)?;
    let mut run = Run::open(&arguments.run, &recipe, arguments.from.as_deref())?;
    let log = OpenOptions::new().create(true).append(true).open(arguments.run.join("log.jsonl"))?;
    let mut log = BufWriter::new(log);
    let bar = output::progress(Some(run.steps_left()), "steps");
    let mut budget = arguments.max_steps.unwrap_or(u64::MAX);
    let mut window = Window::default();
    while budget > 0 && !run.is_done() {
        let steps = budget.min(run.steps_until_multiple_of(arguments.validate_every));
        budget -= steps;
        run.advance(steps, arguments.checkpoint_every, &mut |progress| {
            bar.inc(1);
            window.add(progress);
            if progress.step % LOG_EVERY == 0 || progress.step == progress.steps {
                let line = window.take(progress);
                bar.set_message(format!(
                    "{} {}/{} loss {:.4} accuracy {:.3} {:.0} texts/s",
                    progress.kind.name(),
                    progress.step,
                    progress.steps,
                    line["loss"].as_f64().unwrap_or_default(),
                    line["accuracy"].as_f64().unwrap_or_default(),
                    line["texts_per_second"].as_f64().unwrap_or_default(),
                ));
                write_line(&mut log, &line);
            }
        })?;
        if !run.is_done() {
            let (loss, accuracy) = run.validate(VALIDATION_IMAGES)?;
            let at = run.position();
            write_line(
                &mut log,
                &json!({"stage": at.0.name(), "step": at.1,
                        "validation": {"loss": loss, "accuracy": accuracy}}),
            );
            window = Window::default();
        }
    }
    bar.finish_and_clear();
    if !run.is_done() {
        writeln!(io::stdout(), "stopped with {} steps left; run again to go on", run.steps_left())?;
        return Ok(ExitCode::SUCCESS);
    }
    export(&run, &arguments.out)?;
    writeln!(io::stdout(), "trained; wrote {}", arguments.out.display())?;
    Ok(ExitCode::SUCCESS)
}

/// The recipe of the arguments, with what they change in it.
fn recipe(arguments: &TrainArguments) -> Result<Recipe> {
    let mut recipe = match &arguments.recipe {
        Some(path) => {
            let text =
                fs::read_to_string(path).with_context(|| format!("--recipe {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("--recipe {}", path.display()))?
        }
        None => Recipe::mini(),
    };
    if !arguments.stages.is_empty() {
        recipe
            .keep_stages(&arguments.stages)
            .map_err(|kind| anyhow!("--stages: the recipe has no stage `{}`", kind.name()))?;
    }
    if let Some(targets) = arguments.lora {
        recipe.lora.targets = targets;
    }
    if let Some(objective) = arguments.objective {
        recipe.stages.iter_mut().for_each(|s| s.objective = objective);
    }
    Ok(recipe)
}

/// Means since the last line of the log.
struct Window {
    loss: f64,
    accuracy: f64,
    texts: u64,
    steps: u64,
    since: Instant,
}

impl Default for Window {
    #[expect(clippy::disallowed_methods, reason = "how fast training really goes")]
    fn default() -> Self {
        Self { loss: 0.0, accuracy: 0.0, texts: 0, steps: 0, since: Instant::now() }
    }
}

impl Window {
    fn add(&mut self, progress: &Progress) {
        self.loss += progress.loss;
        self.accuracy += progress.accuracy;
        self.texts += progress.texts;
        self.steps += 1;
    }

    /// A line of the log.
    fn take(&mut self, progress: &Progress) -> Value {
        let window = std::mem::take(self);
        let n = window.steps.max(1) as f64;
        let seconds = window.since.elapsed().as_secs_f64();
        json!({
            "stage": progress.kind.name(), "step": progress.step, "steps": progress.steps,
            "loss": window.loss / n, "accuracy": window.accuracy / n,
            "gradient_norm": progress.gradient_norm, "learning_rate": progress.learning_rate,
            "seconds_per_step": seconds / n, "texts_per_second": window.texts as f64 / seconds,
        })
    }
}

/// The log is for people; a full disk must not end a run whose checkpoint went well.
fn write_line(log: &mut impl Write, line: &Value) {
    drop(output::json_line(log, line).and_then(|()| Ok(log.flush()?)));
}
