mod admin;
mod builtin;
mod correct;
mod merge;
mod security;
mod serve;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sleuth_core::Aggregation;
use sleuth_lab::data::Taxonomy;
use sleuth_lab::scenes::Split;
use sleuth_lab::train::{LoraTargets, Objective, StageKind};
use sleuth_models::cpu::KvType;

pub(crate) use self::admin::{AdminAction, AdminArguments};
pub(crate) use self::builtin::BuiltinArguments;
pub(crate) use self::correct::{CorrectArguments, CorrectorArgument, EndpointArguments};
pub(crate) use self::merge::MergeArguments;
pub(crate) use self::security::SecurityArguments;
pub(crate) use self::serve::{
    ConfigAction, ConfigArguments, ConfigFormat, ServeArguments, TokenAction, TokenArguments,
    TokenFormat,
};

/// Token-level rewards for vision-language models: is this token grounded in the image?
#[derive(Debug, Parser)]
#[command(name = "sleuth", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Score one response, or a JSONL file of them
    Score(ScoreArguments),
    /// Serve rewards over gRPC
    Serve(ServeArguments),
    /// Repair what the image does not bear out, and prove that it is better
    Correct(Box<CorrectArguments>),
    /// Tell what a model folder holds, and what is missing or wrong
    Inspect(InspectArguments),
    /// Draw images whose truth is known, with clean and perturbed responses
    Scenes(ScenesArguments),
    /// Make true captions and answers wrong, in eight taxonomies, by asking a chat model
    Perturb(PerturbArguments),
    /// Train a small model on drawn scenes, or a PaliGemma folder's adapter on your own images
    Train(TrainArguments),
    /// Measure a model on a data folder
    Eval(EvalArguments),
    /// Merge an adapter into its backbone, for transformers and for generation
    Merge(MergeArguments),
    /// Time scoring or generation of given inputs in this process
    Bench(Box<BenchArguments>),
    /// Print or check the settings of a server
    Config(ConfigArguments),
    /// Exchange the model or the adapters of a running server, or drain it
    Admin(AdminArguments),
    /// Make a token for a caller of a server
    Token(TokenArguments),
}

/// Which model to load.
#[derive(Clone, Debug, Args)]
pub(crate) struct ModelArguments {
    /// Model folder [default: the trained model in models/mini]
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// PEFT adapter folder [default: `adapter` inside the model folder, if there]
    #[arg(long, value_name = "DIR", conflicts_with = "no_adapter")]
    pub(crate) adapter: Option<PathBuf>,
    /// Ignore the `adapter` folder inside the model folder
    #[arg(long)]
    pub(crate) no_adapter: bool,
    /// Factor on every LoRA delta (TLDR section 5.4)
    #[arg(long, default_value_t = 1.0)]
    pub(crate) tau: f64,
}

impl ModelArguments {
    /// The same model with another adapter.
    pub(crate) fn with_adapter(&self, adapter: &Path) -> Self {
        Self { adapter: Some(adapter.to_owned()), no_adapter: false, ..self.clone() }
    }
}

/// How the model is laid out on the cores, and what it may hold.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct EngineArguments {
    /// Workers, each of which runs a batch of its own; all share one set of weights
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub(crate) workers: usize,
    /// Threads of each worker [default: the cores, shared out over the workers]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,
    /// Type that keys and values are stored in
    #[arg(long, value_enum, default_value_t = Kv::F32)]
    pub(crate) kv: Kv,
    /// MiB of prefixes' keys and values that are held between batches
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub(crate) prefix_cache: u64,
    /// MiB of the vision tower's outputs that are held between batches
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub(crate) vision_cache: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people: the response with its tokens coloured by reward
    Pretty,
    /// For people: a row per token
    Table,
    /// For scripts: one JSON object
    Json,
}

/// Type of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kv {
    /// Exact
    F32,
    /// Half the memory
    F16,
}

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
pub(crate) struct InspectArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  sleuth scenes --split test --seed 1 --count 200 --out data/test")]
pub(crate) struct ScenesArguments {
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

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sleuth bench --model DIR --inputs inputs.safetensors --repeat 10 --format json
  sleuth bench --model DIR --inputs inputs.safetensors --chunk 8
  sleuth bench --model DIR --inputs inputs.safetensors --generate 64 --candidates 8
  sleuth bench --mixed 200
  sleuth bench --target http://127.0.0.1:50051 --rate 200 --group 8 --seconds 60 --plot load.svg
  sleuth bench --target http://127.0.0.1:50051 --step-groups 64 --step-every 10 --group 8

With --target the exit code is 0 where every item is accounted for and no promise was broken, else 1.")]
pub(crate) struct BenchArguments {
    /// Drive a server at this URL instead: open loop, every item accounted for
    #[arg(long, value_name = "URL", conflicts_with_all = ["inputs", "chunk", "mixed", "dump"])]
    pub(crate) target: Option<String>,
    #[command(flatten)]
    pub(crate) load: LoadArguments,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    /// pixel_values f32 [G,3,H,W], prompt_ids i64 [G,P], response_ids i64 [G,R,S]
    #[arg(long, value_name = "FILE", required_unless_present_any = ["mixed", "target"])]
    pub(crate) inputs: Option<PathBuf>,
    /// Append so many tokens at a time to all responses together; times the appends alone
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    pub(crate) chunk: Option<usize>,
    /// Run so many random batches through the engine instead, and tell how well their cost was
    /// known beforehand
    #[arg(long, value_name = "BATCHES", conflicts_with_all = ["inputs", "chunk", "dump"])]
    pub(crate) mixed: Option<usize>,
    /// Instead of scoring, write so many tokens for each image and prompt, without an end
    #[arg(long, value_name = "TOKENS", value_parser = at_least_two, conflicts_with_all = ["chunk", "mixed", "dump", "target"])]
    pub(crate) generate: Option<usize>,
    /// Candidates that are written at once from each prefix
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64), requires = "generate")]
    pub(crate) candidates: u8,
    /// Timed repetitions, after one that is not
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeat: u32,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,
    /// Type of keys and values
    #[arg(long, value_enum, default_value_t = Kv::F32)]
    pub(crate) kv: Kv,
    /// Write `logits` f32 [G,R,S] here
    #[arg(long, value_name = "FILE")]
    pub(crate) dump: Option<PathBuf>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

/// A time of at least nothing.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|e: std::num::ParseFloatError| e.to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

fn temperature(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|e: std::num::ParseFloatError| e.to_string())?;
    if (0.0..=2.0).contains(&number) { Ok(number) } else { Err("must be 0 to 2".to_owned()) }
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|e: std::num::ParseFloatError| e.to_string())?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err("must be above 0".to_owned()) }
}

/// What a server is sent.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "With --target")]
pub(crate) struct LoadArguments {
    /// Items per second
    #[arg(long, value_name = "N", default_value = "50", value_parser = positive)]
    pub(crate) rate: f64,
    /// Groups at even distances instead of at random moments
    #[arg(long)]
    pub(crate) even: bool,
    /// Groups of a training step, which arrive at once, instead of a rate
    #[arg(long, value_name = "GROUPS", conflicts_with = "rate")]
    pub(crate) step_groups: Option<usize>,
    /// Seconds from step to step
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) step_every: Duration,
    /// Members of a group, which share image and prompt
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) group: u32,
    /// Seconds to measure
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Seconds before that, which are checked and not measured
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub(crate) warm_up: Duration,
    /// Words of a response
    #[arg(long, value_name = "N", default_value_t = 14, value_parser = at_least_one)]
    pub(crate) words: usize,
    /// Prompt of every item [default: the model's own]
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// Distinct images
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    pub(crate) images: usize,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub(crate) connections: usize,
    /// Seconds that an item may take [default: the server's limit]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Send a refused item again so many times, when the server says
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) retries: u32,
    /// Send every n-th item twice at once: both must get the same answer
    #[arg(long, value_name = "N")]
    pub(crate) copy_every: Option<std::num::NonZeroU64>,
    /// Fixes arrivals and texts
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Write a plot here, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) security: SecurityArguments,
}

fn at_least_two(text: &str) -> Result<usize, String> {
    at_least_one(text)
        .and_then(|n| if n > 1 { Ok(n) } else { Err("must be at least 2".to_owned()) })
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(e) => Err(e.to_string()),
    }
}

impl From<Kv> for KvType {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::F32 => Self::F32,
            Kv::F16 => Self::F16,
        }
    }
}
