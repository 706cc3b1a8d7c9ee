use std::path::PathBuf;

use clap::Args;
use sleuth_lab::data::Taxonomy;
use sleuth_lab::scenes::Split;
use sleuth_lab::train::{LoraTargets, Objective, StageKind};

use super::{Format, at_least_one, positive};

#[derive(Debug, Args)]
#[command(
    override_usage = "sleuth scenes --split <SPLIT> --count <COUNT> --out <DIR> [--seed <SEED>]
       sleuth scenes --judge <JSONL>"
)]
#[command(after_help = "Examples:
  sleuth scenes --split test --seed 1 --count 200 --out data/test
  sleuth scenes --judge responses.jsonl

--judge reads lines with `group_id`, as in a folder's data.jsonl, and `response`. For each it prints
how many sentences are right, wrong, unclear and unreadable, and where each stands: a policy that
is trained on rewards can be held against the truth.")]
pub(crate) struct ScenesArguments {
    #[command(flatten)]
    pub(crate) draw: Option<DrawArguments>,
    /// Judge what these lines say of drawn scenes by the truth; `-` is standard input
    #[arg(
        long,
        value_name = "JSONL",
        conflicts_with = "DrawArguments",
        required_unless_present = "DrawArguments"
    )]
    pub(crate) judge: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DrawArguments {
    /// train, validation or test; their scenes never meet
    #[arg(long)]
    pub(crate) split: Split,
    /// Equal seeds give equal folders
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Images to draw
    #[arg(long)]
    pub(crate) count: u64,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sleuth perturb --data photos --out perturbed --url http://localhost:8000/v1 --chat-model llama-3.1-70b
  sleuth perturb --data photos --out perturbed --url https://api.example.com/v1 --chat-model large \\
    --key-file key.txt --requests-per-minute 300 --price-in 0.5 --price-out 1.5
  sleuth perturb --data photos --out trial --url http://localhost:8000/v1 --chat-model m --count 20

Every clean record of --data is copied to --out, with its edits: one for each taxonomy, or a wrong
answer where the prompt is a question. A second question to the model drops edits that are none.
What differs by whole words is labelled bad; a deletion marks the next word.

Stopped at any point, the same command goes on: what was asked is in --out/journal.jsonl.

Exit code: 0 all done; 1 the command failed; 2 wrong usage; 3 some edits got no reply.")]
pub(crate) struct PerturbArguments {
    /// Data folder with data.jsonl
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Where the new data folder goes
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// OpenAI-compatible endpoint, up to the version: http://localhost:8000/v1
    #[arg(long, value_name = "URL")]
    pub(crate) url: String,
    /// The endpoint's name of the model to ask
    #[arg(long, value_name = "NAME")]
    pub(crate) chat_model: String,
    /// File with the endpoint's key
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Taxonomies of captions' edits [default: all eight]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) taxonomies: Vec<Taxonomy>,
    /// Take the first N clean records only
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Edits under way at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one)]
    pub(crate) concurrency: usize,
    /// Most requests in a minute [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) requests_per_minute: Option<u32>,
    /// Seconds for one request
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
    /// Attempts at one request
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub(crate) attempts: u32,
    /// Of the edits; checks are greedy
    #[arg(long, value_name = "0..2", default_value_t = 0.7, value_parser = temperature)]
    pub(crate) temperature: f32,
    /// Passed on to the endpoint
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Price of a million tokens read, for the report
    #[arg(long, value_name = "PRICE", requires = "price_out", value_parser = positive)]
    pub(crate) price_in: Option<f64>,
    /// Price of a million tokens written, for the report
    #[arg(long, value_name = "PRICE", requires = "price_in", value_parser = positive)]
    pub(crate) price_out: Option<f64>,
    /// How the report is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sleuth train --run runs/mini --out models/mini
  sleuth train --run runs/mine --recipe mine.json --out models/mine
  sleuth train --run runs/ablation --stages reward --from models/mini --lora projector --out adapters/projector
  sleuth train --dry-run --recipe recipes/tldr.json --from models/paligemma-3b --data photos
  sleuth train --run runs/tldr --recipe recipes/tldr.json --from models/paligemma-3b --data photos --out adapters/tldr

Stopped at any point, the same command goes on from the last checkpoint and ends in the same bits.")]
pub(crate) struct TrainArguments {
    /// Folder of the run: recipe, checkpoint, log, loss.svg
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    pub(crate) run: Option<PathBuf>,
    /// Recipe as JSON [default: recipes/mini.json, by which models/mini was trained]
    #[arg(long, value_name = "FILE")]
    pub(crate) recipe: Option<PathBuf>,
    /// Only these of the recipe's stages: vision, pretrain, reward
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) stages: Vec<StageKind>,
    /// Start from this PaliGemma folder's backbone, tokenizer and preprocessing; a recipe of the
    /// reward stage alone then writes an adapter for it
    #[arg(long, value_name = "DIR")]
    pub(crate) from: Option<PathBuf>,
    /// Learn from this data folder (data.jsonl and images) instead of drawn scenes
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Print what each stage would take, and train nothing; reads no weights
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// What the adapter adapts: projector, decoder or both [default: as the recipe says]
    #[arg(long, value_name = "TARGETS")]
    pub(crate) lora: Option<LoraTargets>,
    /// What the reward is trained on: tokens, or last_token as the naive baseline [default: as the
    /// recipe says]
    #[arg(long, value_name = "OBJECTIVE")]
    pub(crate) objective: Option<Objective>,
    /// Where to write the finished model folder, or the adapter
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    pub(crate) out: Option<PathBuf>,
    /// How --dry-run prints
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Steps between measurements on validation pictures
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) validate_every: u64,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) checkpoint_every: u64,
    /// Stop after this many steps
    #[arg(long, value_name = "N")]
    pub(crate) max_steps: Option<u64>,
}

fn temperature(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|e: std::num::ParseFloatError| e.to_string())?;
    if (0.0..=2.0).contains(&number) { Ok(number) } else { Err("must be 0 to 2".to_owned()) }
}
