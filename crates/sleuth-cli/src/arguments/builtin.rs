use clap::Args;

/// The backbone that rewrites what is flagged.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Builtin corrector")]
pub(crate) struct BuiltinArguments {
    /// MiB that the corrector `builtin` may take beside the scorer: a second set of weights, caches,
    /// requests under way [default: `sleuth serve` does without it, `sleuth correct` allows 8192]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) corrector_memory: Option<u64>,
    /// Factor on the LoRA deltas of its backbone
    #[arg(long, value_name = "T", default_value_t = 0.25)]
    pub(crate) corrector_tau: f64,
}
