use std::path::PathBuf;

use clap::Args;
use sleuth_core::Aggregation;

use super::{DeviceArguments, EngineArguments, Format, ModelArguments};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sleuth score --image tests/data/scene.png --response 'A large red circle.'
  sleuth score --image photo.jpg --response 'A cat on a mat.' --model paligemma-tldr --format json
  sleuth score --jsonl rollouts.jsonl --out rewards.jsonl --resume

A JSONL line is {\"id\", \"image\" (a path), \"prompt\" (optional), \"response\"}. Lines come back in
order, each with its id, as the object of --format json or as {\"id\", \"error\"}.

Exit code: 0 all scored; 1 the command failed; 2 wrong usage; 3 some lines of a JSONL failed.")]
pub(crate) struct ScoreArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
    /// Image file: JPEG, PNG or WebP
    #[arg(long, value_name = "FILE", required_unless_present = "jsonl", conflicts_with = "jsonl")]
    pub(crate) image: Option<PathBuf>,
    /// The response to score
    #[arg(long, value_name = "TEXT", required_unless_present = "jsonl", conflicts_with = "jsonl")]
    pub(crate) response: Option<String>,
    /// The prompt it answers [default: the model's own]
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// How token rewards become one: mean_log, product_bits, product, min, mean, log_sum, count_below
    #[arg(long, default_value_t = Aggregation::MeanLog)]
    pub(crate) aggregation: Aggregation,
    /// A token is flagged where its reward is not above this [default: the model's own]
    #[arg(long, value_name = "P")]
    pub(crate) threshold: Option<f32>,
    /// Score every line of this file instead; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) jsonl: Option<PathBuf>,
    /// Where to write the JSONL results [default: standard output]
    #[arg(long, value_name = "FILE", requires = "jsonl")]
    pub(crate) out: Option<PathBuf>,
    /// Go on with an output file that an earlier run began
    #[arg(long, requires = "out")]
    pub(crate) resume: bool,
    /// How to print one item
    #[arg(long, value_enum, default_value_t = Format::Pretty)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sleuth inspect --model paligemma-3b
  sleuth inspect --model paligemma-3b --devices")]
pub(crate) struct InspectArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    /// Tell this machine's GPUs instead, and where replicas of the model would go
    #[arg(long)]
    pub(crate) devices: bool,
    #[command(flatten)]
    pub(crate) on: DeviceArguments,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}
