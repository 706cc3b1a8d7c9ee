//! A collector of traces to look at: prints its address, and then each span as it arrives.
//!
//! `cargo run -p sleuth-telemetry --features test-util --example collector [-- --quiet]`
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::time::Duration;

use sleuth_telemetry::receiver::Receiver;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let quiet = std::env::args().any(|argument| argument == "--quiet");
    let receiver = Receiver::start().await?;
    println!("{}", receiver.url());
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        for span in receiver.take() {
            if !quiet {
                let millis = (span.time.1 - span.time.0) as f64 / 1e6;
                println!("{:10} {millis:9.3} ms  {:?}", span.name, span.attributes);
            }
        }
    }
}
