use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use sleuth_core::{Aggregation, CorrectorKind, GuidanceLevel};

use super::{BuiltinArguments, EngineArguments, Format, ModelArguments, at_least_one};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sleuth correct --image docs/scene.png --response 'The large heart is red.' --corrector guidance
  sleuth correct --image photo.jpg --response 'A cat on a mat.' --corrector endpoint \\
    --endpoint-url http://localhost:8000/v1 --endpoint-model qwen2-vl --rounds 3 --candidates 4
  sleuth correct --jsonl rollouts.jsonl --out corrected.jsonl --pairs pairs.jsonl --corrector endpoint \\
    --endpoint-url https://api.example.com/v1 --endpoint-allow api.example.com --endpoint-model large
  sleuth correct --data data/test --rounds 2 --candidates 4 --report correction.md

A JSONL line is {\"id\", \"image\" (a path), \"prompt\" (optional), \"response\"}. Lines come back in
order, each with its id, as the object of --format json or as {\"id\", \"error\"}.

A repair is kept if flagged tokens fall, per word too, the mean_log reward rises by 0.01, no sentence
becomes flagged, at least 80 % of the unflagged words remain, and little comes in.

Pairs are for TRL's DPO trainer, conversational: {\"images\": [path], \"prompt\", \"chosen\", \"rejected\"},
the latter three as lists of messages with text; a line for each response with a kept repair.

Exit code: 0 all done; 1 the command failed; 2 wrong usage; 3 some lines failed or were stopped.")]
pub(crate) struct CorrectArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
    #[command(flatten)]
    pub(crate) endpoint: EndpointArguments,
    #[command(flatten)]
    pub(crate) builtin: BuiltinArguments,
    /// Image file: JPEG, PNG or WebP
    #[arg(long, value_name = "FILE", required_unless_present_any = ["jsonl", "data"], conflicts_with_all = ["jsonl", "data"])]
    pub(crate) image: Option<PathBuf>,
    /// The response to correct
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["jsonl", "data"], conflicts_with_all = ["jsonl", "data"])]
    pub(crate) response: Option<String>,
    /// The prompt it answers [default: the model's own]
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// Who proposes repairs
    #[arg(long, value_enum, default_value_t = CorrectorArgument::Builtin)]
    pub(crate) corrector: CorrectorArgument,
    /// What the corrector is told
    #[arg(long, value_enum, default_value_t = GuidanceArgument::Token)]
    pub(crate) guidance: GuidanceArgument,
    /// Rounds at most
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) rounds: u32,
    /// Repairs that are scored in a round at most
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) candidates: u32,
    /// Seconds for one response
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) timeout: u64,
    /// Of what is sampled
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// How token rewards become one, for the rewards that are told; the rule takes mean_log
    #[arg(long, default_value_t = Aggregation::MeanLog)]
    pub(crate) aggregation: Aggregation,
    /// A token is flagged where its reward is not above this [default: the model's own]
    #[arg(long, value_name = "P")]
    pub(crate) threshold: Option<f32>,
    /// Correct every line of this file instead; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) jsonl: Option<PathBuf>,
    /// Where to write the JSONL results [default: standard output]
    #[arg(long, value_name = "FILE", requires = "jsonl")]
    pub(crate) out: Option<PathBuf>,
    /// Go on with an output file that an earlier run began
    #[arg(long, requires = "out")]
    pub(crate) resume: bool,
    /// Write pairs of repaired and original responses here, as JSONL
    #[arg(long, value_name = "FILE")]
    pub(crate) pairs: Option<PathBuf>,
    /// Correct every response of this folder of drawn scenes instead, once for each level of
    /// --levels, and tell by the known truth how many got better and worse
    #[arg(long, value_name = "DIR", conflicts_with_all = ["jsonl", "pairs", "events"])]
    pub(crate) data: Option<PathBuf>,
    /// What the corrector is told, in turn
    #[arg(long, value_enum, value_delimiter = ',', requires = "data",
        default_values_t = [GuidanceArgument::Token, GuidanceArgument::Response, GuidanceArgument::Naive])]
    pub(crate) levels: Vec<GuidanceArgument>,
    /// Take the first N records only
    #[arg(long, value_name = "N", requires = "data")]
    pub(crate) count: Option<u64>,
    /// Write the figures of --data here, as Markdown
    #[arg(long, value_name = "FILE", requires = "data")]
    pub(crate) report: Option<PathBuf>,
    /// Print what happens as it happens, a JSON line each, before the result
    #[arg(long, conflicts_with = "jsonl")]
    pub(crate) events: bool,
    /// How to print one response
    #[arg(long, value_enum, default_value_t = Format::Pretty)]
    pub(crate) format: Format,
}

/// An OpenAI-compatible server that proposes repairs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Endpoint")]
#[expect(clippy::struct_field_names, reason = "the names are those of the arguments")]
pub(crate) struct EndpointArguments {
    /// Where the corrector `endpoint` asks, up to the version: http://localhost:8000/v1. The key is
    /// read from --endpoint-key-file, else from SLEUTH_ENDPOINT_KEY
    #[arg(long, value_name = "URL", requires = "endpoint_model")]
    pub(crate) endpoint_url: Option<String>,
    /// The endpoint's name of the model to ask
    #[arg(long, value_name = "NAME", requires = "endpoint_url")]
    pub(crate) endpoint_model: Option<String>,
    /// File with the endpoint's key
    #[arg(long, value_name = "FILE", requires = "endpoint_url")]
    pub(crate) endpoint_key_file: Option<PathBuf>,
    /// Hosts that may be asked beside this machine
    #[arg(long, value_name = "HOSTS", value_delimiter = ',')]
    pub(crate) endpoint_allow: Vec<String>,
    /// Send the image along; `false` for models that read text alone
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub(crate) endpoint_image: bool,
    /// Seconds for one request
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) endpoint_timeout: u64,
    /// Attempts at one request
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub(crate) endpoint_attempts: u32,
    /// Requests under way at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one)]
    pub(crate) endpoint_concurrency: usize,
    /// Most requests in a minute [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) endpoint_requests_per_minute: Option<u32>,
}

/// Who proposes repairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CorrectorArgument {
    /// The backbone's own language head
    Builtin,
    /// An OpenAI-compatible server
    Endpoint,
    /// Nobody here: the prompt for your own policy is printed
    Guidance,
}

/// What a corrector is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GuidanceArgument {
    /// Which words are flagged
    Token,
    /// That something is flagged
    Response,
    /// Nothing
    Naive,
}

impl From<CorrectorArgument> for CorrectorKind {
    fn from(argument: CorrectorArgument) -> Self {
        match argument {
            CorrectorArgument::Builtin => Self::Builtin,
            CorrectorArgument::Endpoint => Self::Endpoint,
            CorrectorArgument::Guidance => Self::Guidance,
        }
    }
}

impl From<GuidanceArgument> for GuidanceLevel {
    fn from(argument: GuidanceArgument) -> Self {
        match argument {
            GuidanceArgument::Token => Self::Token,
            GuidanceArgument::Response => Self::Response,
            GuidanceArgument::Naive => Self::Naive,
        }
    }
}
