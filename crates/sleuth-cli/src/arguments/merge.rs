use std::path::PathBuf;

use clap::Args;

use super::{Format, ModelArguments};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sleuth merge --tau 0.25 --out merged
  sleuth merge --tau 0.5 --model paligemma-tldr --adapter adapters/scenes --out backbones/half

The new folder holds the weights in their stored types, config, tokenizer and preprocessor, without
the reward head; PaliGemmaForConditionalGeneration.from_pretrained reads it. With --tau 0 it is the
base to the bit. It appears whole or not at all.")]
pub(crate) struct MergeArguments {
    /// Factor on every LoRA delta: 0 is the base, 1 the trained adapter (TLDR section 5.4)
    #[arg(long, value_name = "T")]
    pub(crate) tau: f64,
    /// Model folder [default: the trained model in models/mini]
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// PEFT adapter folder [default: `adapter` inside the model folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
    /// The folder to write; it must not be there yet
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// How to print what was written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

// === impl MergeArguments ===

impl MergeArguments {
    /// The model that is merged.
    pub(crate) fn model(&self) -> ModelArguments {
        ModelArguments {
            model: self.model.clone(),
            adapter: self.adapter.clone(),
            no_adapter: false,
            tau: self.tau,
        }
    }
}
