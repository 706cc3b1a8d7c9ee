use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use sleuth_lab::train::{
    Exported, Footprint, Progress, Recipe, Run, Sources, export, footprints, plot_log,
};

use crate::arguments::{Format, TrainArguments};
use crate::output::{self, Table};

/// Steps between lines of the log.
const LOG_EVERY: u64 = 20;
/// Validation scenes that a stage is measured on while it runs.
const VALIDATION_IMAGES: u64 = 64;
const LOG: &str = "log.jsonl";
const PLOT: &str = "loss.svg";

pub(super) fn run(arguments: &TrainArguments) -> Result<ExitCode> {
    let recipe = recipe(arguments)?;
    let sources = Sources { from: arguments.from.clone(), data: arguments.data.clone() };
    if arguments.dry_run {
        return tell(&footprints(&recipe, &sources)?, arguments.format);
    }
    let out = arguments.out.as_deref().context("--out DIR: where to write what was trained")?;
    let folder = arguments.run.as_deref().context("--run DIR: where the run is kept")?;
    let mut run = Run::open(folder, &recipe, &sources)?;
    let log = OpenOptions::new().create(true).append(true).open(folder.join(LOG))?;
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
        if !run.is_done()
            && let Some((loss, accuracy)) = run.validate(VALIDATION_IMAGES)?
        {
            let at = run.position();
            write_line(
                &mut log,
                &json!({"stage": at.0.name(), "step": at.1,
                        "validation": {"loss": loss, "accuracy": accuracy}}),
            );
        }
        window = Window::default();
        draw(folder);
    }
    // Also of a run that was done before.
    draw(folder);
    bar.finish_and_clear();
    if !run.is_done() {
        writeln!(io::stdout(), "stopped with {} steps left; run again to go on", run.steps_left())?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown = out.display();
    match (export(&run, out)?, &arguments.from) {
        (Exported::Adapter, Some(from)) => writeln!(
            io::stdout(),
            "trained; wrote the adapter {shown}: use it with --model {} --adapter {shown}",
            from.display()
        )?,
        _ => writeln!(io::stdout(), "trained; wrote {shown}")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What the stages would take.
fn tell(footprints: &[Footprint], format: Format) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    if format == Format::Json {
        output::json_line(&mut out, &footprints)?;
        return Ok(ExitCode::SUCCESS);
    }
    let columns =
        ["stage", "parameters", "trained", "rows/step", "weights", "training", "activations"];
    let mut table = Table::new(&[&columns[..], &["together"]].concat());
    let million = |n: u64| format!("{:.1} M", n as f64 / 1e6);
    let gib = |n: u64| format!("{:.2} GiB", n as f64 / f64::from(1 << 30));
    for f in footprints {
        let bytes = [f.weight_bytes, f.training_bytes, f.activation_bytes, f.total_bytes].map(gib);
        let counts = [million(f.parameters), million(f.trained_parameters), f.rows.to_string()];
        let mut row = vec![f.stage.name().to_owned()];
        row.extend(counts.into_iter().chain(bytes));
        table.row(row);
    }
    write!(out, "{table}")?;
    Ok(ExitCode::SUCCESS)
}

/// Draws the log; like the log, for people.
fn draw(folder: &Path) {
    let name = folder.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    if let Ok(log) = fs::read_to_string(folder.join(LOG)) {
        drop(fs::write(folder.join(PLOT), plot_log(&name, &log)));
    }
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
