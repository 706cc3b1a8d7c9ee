use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{EngineArguments, Format, ModelArguments};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sleuth eval --data data/test
  sleuth eval --data data/test --vision both --html report.html
  sleuth eval --data data/test --calibrate --validation data/validation --format json
  sleuth eval --data data/test --naive runs/naive/adapter --markdown report.md
  sleuth eval --data data/validation --baseline baseline.json
  sleuth eval --data data/test --backbone 0,0.1,0.25,0.5,1
  sleuth eval --correlate scores.csv

The table for --correlate has the columns name, token_rate (a fraction) and one for each score.")]
pub(crate) struct EvalArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
    /// Data folder with data.jsonl
    #[arg(long, value_name = "DIR", required_unless_present = "correlate")]
    pub(crate) data: Option<PathBuf>,
    /// Data folder that the threshold is chosen on [default: the measured one]
    #[arg(long, value_name = "DIR", requires = "calibrate")]
    pub(crate) validation: Option<PathBuf>,
    /// Instead: fit benchmark scores to token hallucination rates, from CSV or JSON
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub(crate) correlate: Option<PathBuf>,
    /// Instead: have the backbone caption the folder's scenes, the adapter's deltas times each of
    /// these factors, and judge what it says by what is true
    #[arg(long, value_name = "TAUS", value_delimiter = ',', requires = "data", conflicts_with_all = ["calibrate", "naive", "html", "baseline", "markdown"])]
    pub(crate) backbone: Vec<f64>,
    /// Captions of each scene, with --backbone
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN.saturating_add(3))]
    pub(crate) captions: NonZeroUsize,
    /// Whether the model sees the pictures; `both` adds a row
    #[arg(long, value_enum, default_value_t = Vision::Seeing)]
    pub(crate) vision: Vision,
    /// Add a row for this adapter, which was trained on the last token alone
    #[arg(long, value_name = "DIR")]
    pub(crate) naive: Option<PathBuf>,
    /// Choose the threshold at which most responses are judged rightly, and tell how well rewards
    /// are probabilities
    #[arg(long)]
    pub(crate) calibrate: bool,
    /// Store the chosen threshold in the model folder's reward_config.json
    #[arg(long, requires = "calibrate")]
    pub(crate) write_threshold: bool,
    /// Write a page with pictures and coloured tokens
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Most responses on that page
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub(crate) html_items: usize,
    /// Write how the rewards are distributed, for `sleuth serve --reward-baseline`
    #[arg(long, value_name = "FILE", requires = "data")]
    pub(crate) baseline: Option<PathBuf>,
    /// Write the tables as Markdown
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Vision {
    /// Each response's own picture
    Seeing,
    /// A blank picture instead of each: what the model knows without looking
    Blank,
    /// One after the other
    Both,
}
