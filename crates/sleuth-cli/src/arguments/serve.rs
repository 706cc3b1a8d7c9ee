use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sleuth_server::Role;

use crate::settings::{Flags, RouteFlags, ServeFlags};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sleuth serve
  sleuth serve --listen 127.0.0.1:6000 --model paligemma-tldr --adapter adapters/scenes
  sleuth serve --max-wait 0.5 --burst 120
  sleuth serve --config sleuth.toml
  sleuth serve --listen 0.0.0.0:50051 --tls-certificate tls.crt --tls-key tls.key --credentials callers.toml
  sleuth serve --simulated-device 500000,0.002
  sleuth serve --http-listen 127.0.0.1:50053

Every flag is also a key of the file and an environment variable; docs/settings.md lists them.

Signals: TERM and INT drain and end; a second one ends at once. HUP has certificates and
credentials read again.

Exit code: 0 all items got their verdicts; 1 the command failed or a deadline cut items off.")]
pub(crate) struct ServeArguments {
    /// Settings file, TOML [environment: SLEUTH_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) flags: ServeFlags,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sleuth route --replicas http://10.0.0.1:50051,http://10.0.0.2:50051 --listen 127.0.0.1:50050
  sleuth route --replicas dns://sleuth-replicas.rewards.svc:50051
  sleuth route --replicas kubernetes://rewards/sleuth-replicas:grpc
  sleuth route --config router.toml

A router has the API of a replica. Every flag is also a key of the file and an environment variable;
docs/settings.md lists them, docs/routing.md says where items go and what happens when replicas fail.
`sleuth top` shows what it does.

Exit code: 0 all items got their verdicts; 1 the command failed or a deadline cut items off.")]
pub(crate) struct RouteArguments {
    /// Settings file, TOML [environment: SLEUTH_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) flags: RouteFlags,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sleuth config print
  sleuth config print --config sleuth.toml --workers 2 --format json
  sleuth config check sleuth.toml")]
pub(crate) struct ConfigArguments {
    #[command(subcommand)]
    pub(crate) action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Print what is in force, and where each value comes from
    Print {
        /// Settings file, TOML [environment: SLEUTH_CONFIG]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// How to print it
        #[arg(long, value_enum, default_value_t = ConfigFormat::Toml)]
        format: ConfigFormat,
        /// Say what every key is for
        #[arg(long)]
        documented: bool,
        #[command(flatten)]
        flags: Flags,
    },
    /// Check a settings file and the certificates and credentials that it names
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print docs/settings.md
    Docs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConfigFormat {
    /// A settings file
    Toml,
    /// One JSON object
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sleuth top
  sleuth top http://router-0:50052

Keys: q ends, arrows scroll. Where the output is no terminal, one table is printed.")]
pub(crate) struct TopArguments {
    /// The router's admin port
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:50052")]
    pub(crate) admin: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sleuth probe
  sleuth probe http://127.0.0.1:50052/livez

Ends with 0 where the answer is 200, else with 1; for containers, whose image holds no other program.")]
pub(crate) struct ProbeArguments {
    /// What to ask: a path of a server's or router's admin port
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:50052/readyz")]
    pub(crate) url: String,
    /// Seconds to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = some_seconds)]
    pub(crate) timeout: f64,
}

fn some_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number of seconds, 0.001 to 3600".to_owned()),
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  sleuth token new --name trainer-1 --tenant vision --role score >>callers.toml

The token is printed to standard error, once; the entry for the credentials file, which holds only
its digest, to standard output. With --format json both are one object on standard output.")]
pub(crate) struct TokenArguments {
    #[command(subcommand)]
    pub(crate) action: TokenAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Make a token and print it once, with its entry for the credentials file
    New {
        /// How logs name the caller [default: the tenant]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Whose quotas, images and idempotency keys the caller shares
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// What it may do: score, read, router, admin; several times for several
        #[arg(long = "role", value_name = "ROLE", value_parser = role, default_value = "score")]
        roles: Vec<Role>,
        /// How to print it
        #[arg(long, value_enum, default_value_t = TokenFormat::Toml)]
        format: TokenFormat,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenFormat {
    /// The entry, for a credentials file
    Toml,
    /// One JSON object, with the token
    Json,
}

fn role(text: &str) -> Result<Role, String> {
    Role::named(text).ok_or_else(|| "must be score, read, router or admin".to_owned())
}
