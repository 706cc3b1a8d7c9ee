use clap::{Args, Subcommand};

use super::SecurityArguments;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sleuth admin load-weights paligemma-tldr-2
  sleuth admin load-adapter ocr adapters/ocr
  sleuth admin adapters --json
  sleuth admin unload-adapter ocr
  sleuth admin drain --deadline 60

Paths are relative to the server's model root (model.root). The calls take the role `admin`.")]
pub(crate) struct AdminArguments {
    #[command(subcommand)]
    pub(crate) action: AdminAction,
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051", global = true)]
    pub(crate) target: String,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) security: SecurityArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AdminAction {
    /// Load a model folder beside the present one, prove its rewards, and make it the default
    LoadWeights {
        /// The folder, relative to the model root
        path: String,
        /// The version that the files must have, by their digests; `sleuth inspect` tells it
        #[arg(long, value_name = "VERSION", default_value = "", hide_default_value = true)]
        expect: String,
        /// Seconds that the present version may serve its groups on [default: the server's]
        #[arg(long, value_name = "SECONDS")]
        keep: Option<u64>,
    },
    /// Load an adapter folder under a name that items can ask for
    LoadAdapter {
        /// The name
        name: String,
        /// The folder, relative to the model root
        path: String,
        /// The version that the files must have, by their digests; `sleuth inspect` tells it
        #[arg(long, value_name = "VERSION", default_value = "", hide_default_value = true)]
        expect: String,
        /// Items that name no adapter use it from now on
        #[arg(long)]
        make_default: bool,
    },
    /// Offer an adapter no more
    UnloadAdapter {
        /// Its name
        name: String,
    },
    /// List the adapters that items can ask for
    Adapters,
    /// Refuse new items and finish the rest; the process stays
    Drain {
        /// Seconds after which unfinished items are given up [default: the server's]
        #[arg(long, value_name = "SECONDS")]
        deadline: Option<u64>,
    },
}
