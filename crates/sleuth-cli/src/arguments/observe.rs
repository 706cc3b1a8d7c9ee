use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// What a server tells of itself.
#[derive(Clone, Debug, Args)]
pub(crate) struct ObserveArguments {
    /// Serve metrics for Prometheus on this address, at /metrics [default: not]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Count verdicts of so many tenants apart, the first that come; the others together
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) metrics_tenants: usize,
    /// Compare rewards with these, as `sleuth eval --baseline FILE` wrote them
    #[arg(long, value_name = "FILE")]
    pub(crate) reward_baseline: Option<PathBuf>,
    /// Send traces to this OTLP/gRPC collector, such as http://127.0.0.1:4317 [default: not]
    #[arg(long, value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
    /// Share of traces that are sent, 0 to 1, unless callers decide; failures and the slowest
    /// hundredth are sent always
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, requires = "otlp_endpoint")]
    pub(crate) trace_sample: f64,
    /// The service's name in traces
    #[arg(long, value_name = "NAME", default_value = "sleuth", requires = "otlp_endpoint")]
    pub(crate) otlp_service_name: String,
    /// More about this server for traces; any number of times
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, requires = "otlp_endpoint")]
    pub(crate) otlp_attribute: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "is NAME=VALUE".to_owned())
}
