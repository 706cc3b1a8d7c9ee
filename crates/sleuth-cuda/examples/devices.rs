//! Prints the devices of this machine, which reach each other, and where replicas would go.
//!
//! ```sh
//! cargo run -p sleuth-cuda --features cuda --example devices -- 0.9 9600 1024 512
//! ```
//! The numbers are the share of free memory, then MiB of weights, of workspace and of the smallest cache.

use std::io::{self, Write};
use std::process::ExitCode;

use sleuth_cuda::{MemoryShare, ReplicaNeed, Wanted, discover, place, report};

fn main() -> ExitCode {
    match run() {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(message) => {
            // Nobody is left to tell where standard error is closed.
            let _ = writeln!(io::stderr(), "devices: {message}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<String, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [share, weights, workspace, smallest_cache] = match &arguments[..] {
        [] => [0.9, 9600.0, 1024.0, 512.0],
        [_, _, _, _] => {
            let mut numbers = [0.0; 4];
            for (number, argument) in numbers.iter_mut().zip(&arguments) {
                *number = argument.parse().map_err(|_| format!("{argument} is no number"))?;
            }
            numbers
        }
        _ => {
            return Err("give no numbers, or SHARE WEIGHTS WORKSPACE CACHE, the last three in MiB"
                .to_owned());
        }
    };
    let share = MemoryShare::new(share).map_err(|error| error.to_string())?;
    let bytes = |mib: f64| (mib.max(0.0) * 1_048_576.0) as u64;
    let need = ReplicaNeed {
        weights: bytes(weights),
        workspace: bytes(workspace),
        smallest_cache: bytes(smallest_cache),
    };
    let discovery = discover();
    let plan = place(&discovery.candidates(), share, &need, Wanted::AsManyAsFit, None)
        .map_err(|error| error.to_string())?;
    Ok(report(&discovery, &plan))
}
