mod admin;
mod bench;
mod builtin;
mod correct;
mod device;
mod eval;
mod lab;
mod merge;
mod score;
mod security;
mod serve;
mod simulate;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use sleuth_models::cpu::KvType;

pub(crate) use self::admin::{AdminAction, AdminArguments};
pub(crate) use self::bench::{BenchArguments, LoadArguments};
pub(crate) use self::builtin::BuiltinArguments;
pub(crate) use self::correct::{CorrectArguments, CorrectorArgument, EndpointArguments};
pub(crate) use self::device::{DeviceArguments, DeviceKind, Ordinals, Weights};
pub(crate) use self::eval::{EvalArguments, Vision};
pub(crate) use self::lab::{DrawArguments, PerturbArguments, ScenesArguments, TrainArguments};
pub(crate) use self::merge::MergeArguments;
pub(crate) use self::score::{InspectArguments, ScoreArguments};
pub(crate) use self::security::SecurityArguments;
pub(crate) use self::serve::{
    ConfigAction, ConfigArguments, ConfigFormat, ProbeArguments, RouteArguments, ServeArguments,
    TokenAction, TokenArguments, TokenFormat, TopArguments,
};
pub(crate) use self::simulate::SimulateArguments;

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
    /// Route items to the replicas that hold their prefixes
    Route(RouteArguments),
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
    /// Show a router's replicas, queues, hit rates and latencies in the terminal
    Top(TopArguments),
    /// Ask a server's admin port whether it is up, and end with the answer
    Probe(ProbeArguments),
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
    /// MiB of prefixes' keys and values that are held between batches [default: 1024, or four
    /// prefixes of the model where those are more]
    #[arg(long, value_name = "MIB")]
    pub(crate) prefix_cache: Option<u64>,
    /// MiB of the vision tower's outputs that are held between batches [default: 256, or four images
    /// of the model where those are more]
    #[arg(long, value_name = "MIB")]
    pub(crate) vision_cache: Option<u64>,
    #[command(flatten)]
    pub(crate) on: DeviceArguments,
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

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(e) => Err(e.to_string()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|e: std::num::ParseFloatError| e.to_string())?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err("must be above 0".to_owned()) }
}

impl From<Kv> for KvType {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::F32 => Self::F32,
            Kv::F16 => Self::F16,
        }
    }
}
