//! Scores one response and prints its tokens with their rewards:
//! `cargo run -p sleuth-client --example score -- photo.jpg "A red car." [http://127.0.0.1:50051]`.

use std::error::Error;

use sleuth_client::Client;
use sleuth_core::ScoreRequest;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(response)) = (args.next(), args.next()) else {
        return Err("usage: score IMAGE RESPONSE [URL]".into());
    };
    let url = args.next().unwrap_or_else(|| "http://127.0.0.1:50051".to_owned());
    let client = Client::connect(url).await?;
    let request = ScoreRequest::new(std::fs::read(path)?.into(), response.clone());
    let scored = client.score(request).await?;
    for token in &scored.tokens {
        // A token of a character's single bytes has no text of its own.
        let text = response.get(token.span.range()).unwrap_or("?");
        print(&format!("{:.4}  {text:?}", token.reward));
    }
    print(&format!("{:.4}  response, by {}", scored.reward, scored.aggregation));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example prints its result")]
fn print(line: &str) {
    println!("{line}");
}
