use std::path::PathBuf;

use clap::Args;
use sleuth_router::simulate::DeviceCost;

/// What is simulated.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "With --simulate")]
pub(crate) struct SimulateArguments {
    /// Seconds of a batch, of a prefix's position, of a response's token and of an image, instead of
    /// what the model takes here
    #[arg(long, value_name = "S,S,S,S", value_parser = cost)]
    pub(crate) cost: Option<DeviceCost>,
    /// Only workloads whose name holds this
    #[arg(long, value_name = "TEXT")]
    pub(crate) workload: Option<String>,
    /// A recorded step instead: JSON lines with at (seconds), prefix (a number), prefix_positions,
    /// response_tokens, and group and group_size where there is a group
    #[arg(long, value_name = "FILE")]
    pub(crate) arrivals: Option<PathBuf>,
    /// Replicas of a recorded step
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = replicas, requires = "arrivals")]
    pub(crate) replicas: usize,
    /// Seeds to take the mean of
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) seeds: u64,
    /// Write a plot of all policies here, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) simulation_plot: Option<PathBuf>,
}

fn replicas(text: &str) -> Result<usize, String> {
    let sound = |n: &usize| (1..=64).contains(n);
    text.parse().ok().filter(sound).ok_or_else(|| "must be 1 to 64".to_owned())
}

fn cost(text: &str) -> Result<DeviceCost, String> {
    let numbers: Option<Vec<f64>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    let sound = |n: &f64| n.is_finite() && *n >= 0.0;
    match numbers.as_deref() {
        Some(&[batch, position, token, image])
            if [batch, position, token, image].iter().all(sound) =>
        {
            Ok(DeviceCost {
                batch_seconds: batch,
                seconds_per_prefix_position: position,
                seconds_per_response_token: token,
                seconds_per_image: image,
            })
        }
        _ => Err("must be four numbers of at least 0, with commas between".to_owned()),
    }
}
