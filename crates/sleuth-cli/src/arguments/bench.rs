use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{
    Format, Kv, ModelArguments, SecurityArguments, SimulateArguments, at_least_one, positive,
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sleuth bench --model DIR --inputs inputs.safetensors --repeat 10 --format json
  sleuth bench --model DIR --inputs inputs.safetensors --chunk 8
  sleuth bench --model DIR --inputs inputs.safetensors --generate 64 --candidates 8
  sleuth bench --mixed 200
  sleuth bench --simulate --simulation-plot routing.svg
  sleuth bench --simulate --cost 0.003,20e-6,20e-6,0.002 --workload Relax
  sleuth bench --target http://127.0.0.1:50051 --rate 200 --group 8 --seconds 60 --plot load.svg
  sleuth bench --target http://127.0.0.1:50051 --step-groups 64 --step-every 10 --group 8

With --target the exit code is 0 where every item is accounted for and no promise was broken, else 1.")]
pub(crate) struct BenchArguments {
    /// Drive a server at this URL instead, or several with commas between: open loop, every item
    /// accounted for
    #[arg(long, value_name = "URL", conflicts_with_all = ["inputs", "chunk", "mixed", "dump"])]
    pub(crate) target: Option<String>,
    #[command(flatten)]
    pub(crate) load: LoadArguments,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    /// pixel_values f32 [G,3,H,W], prompt_ids i64 [G,P], response_ids i64 [G,R,S]
    #[arg(long, value_name = "FILE", required_unless_present_any = ["mixed", "target", "simulate"])]
    pub(crate) inputs: Option<PathBuf>,
    /// Append so many tokens at a time to all responses together; times the appends alone
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    pub(crate) chunk: Option<usize>,
    /// Run so many random batches through the engine instead, and tell how well their cost was
    /// known beforehand
    #[arg(long, value_name = "BATCHES", conflicts_with_all = ["inputs", "chunk", "dump"])]
    pub(crate) mixed: Option<usize>,
    /// Compare placement policies on simulated replicas, with what work costs the model here
    #[arg(long, conflicts_with_all = ["target", "inputs", "chunk", "mixed", "dump", "generate"])]
    pub(crate) simulate: bool,
    #[command(flatten)]
    pub(crate) simulation: SimulateArguments,
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
    /// Attempts at an item by the client itself, as a trainer makes them where a connection breaks, a
    /// server drains or no longer has the image
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) attempts: u32,
    /// End with 1 where a smaller share of the items than this is valid
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) expect_valid: Option<f64>,
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

/// A time of at least nothing.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|e: std::num::ParseFloatError| e.to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("must be a share, 0 to 1".to_owned()),
    }
}

fn at_least_two(text: &str) -> Result<usize, String> {
    at_least_one(text)
        .and_then(|n| if n > 1 { Ok(n) } else { Err("must be at least 2".to_owned()) })
}
