use sleuth_client::Client;
use sleuth_core::{ImageSource, ScoreRequest, TokenReward};

use crate::command::{json, path, picture, sleuth};
use crate::server::Server;

fn request(response: &str) -> ScoreRequest<bytes::Bytes> {
    ScoreRequest::new(std::fs::read(picture()).unwrap().into(), response)
}

#[tokio::test]
async fn the_server_and_the_command_line_give_the_same_rewards() {
    let mut server = Server::start(None, &[]);
    let client = Client::connect(server.url()).await.unwrap();
    let response = "There are three objects. A small red star is left of a blue ring.";
    let scored = client.score(request(response)).await.unwrap();
    let image = picture();
    let local =
        json(&["score", "--image", path(&image), "--response", response, "--format", "json"]);
    let tokens = local["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), scored.tokens.len());
    for (token, local) in scored.tokens.iter().zip(tokens) {
        assert_eq!(u64::from(token.span.start()), local["start"].as_u64().unwrap());
        assert!((f64::from(token.reward) - local["reward"].as_f64().unwrap()).abs() < 1e-6);
    }
    assert_eq!(local["model"]["version"], scored.version);
    let card = client.model().await.unwrap();
    assert_eq!((card.name.as_str(), card.version), ("mini", scored.version));
    assert!(server.terminate().success(), "SIGTERM drains and ends well");
}

#[tokio::test]
async fn bad_items_fail_alone_among_many() {
    let server = Server::start(None, &[]);
    let client = Client::connect(server.url()).await.unwrap();
    let requests: Vec<_> = (0..40)
        .map(|i| {
            let mut request = request(&format!("There are {i} stars. A circle is on the left."));
            match i % 10 {
                3 => {
                    let data = bytes::Bytes::from_static(b"no picture");
                    request.context.image = ImageSource::Data(data);
                }
                5 => request.context.adapter = Some("no-such-adapter".to_owned()),
                7 => request.response = String::new(),
                _ => {}
            }
            request
        })
        .collect();
    let calls = requests.into_iter().map(|request| {
        let client = client.clone();
        tokio::spawn(async move { client.score(request).await })
    });
    for (i, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        let result = call.await.unwrap();
        let reason = match i % 10 {
            3 => "image_format_unsupported",
            5 => "adapter_unknown",
            7 => "response_empty",
            _ => {
                let scored = result.unwrap();
                // In f32 the sigmoid of 17 and more is 1.
                let sound = |t: &TokenReward| t.reward > 0.0 && (t.reward < 1.0 || t.logit > 16.0);
                assert!(scored.tokens.iter().all(sound));
                continue;
            }
        };
        let error = result.unwrap_err().to_string();
        assert!(error.contains(reason), "item {i}: {error}");
    }
}

#[test]
fn another_address_than_loopback_takes_a_flag() {
    let output = sleuth(&["serve", "--listen", "0.0.0.0:0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--insecure"));
}
