use std::path::PathBuf;

use clap::Args;

/// How a server is known, and knows us.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct SecurityArguments {
    /// Authorities that vouch for an https server, PEM
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) ca: Option<PathBuf>,
    /// The name in the server's certificate [default: the URL's host]
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) server_name: Option<String>,
    /// Our own certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "client_key", global = true)]
    pub(crate) client_certificate: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "client_certificate", global = true)]
    pub(crate) client_key: Option<PathBuf>,
    /// File with the token that goes with every call [default: the variable `SLEUTH_TOKEN`]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) token_file: Option<PathBuf>,
}
