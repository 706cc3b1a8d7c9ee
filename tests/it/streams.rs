//! Open items, policy tokens and images by digest, over a real server with the trained model.

use bytes::Bytes;
use sleuth_client::{Client, Event};
use sleuth_core::{
    Context, ImageSource, PolicyReward, PolicyTokens, ScoreRequest, Scored, SentenceRule,
    TokenReward,
};

use crate::command::{json, picture};
use crate::server::Server;

const RESPONSES: [&str; 3] = [
    "There are three objects. A small red star is left of a blue ring.",
    "A caf\u{e9} \u{1f600}\u{200d}\u{1f525} sign says <eos>.\n\n  Two   spaces, and a tab\t!",
    "x",
];

fn image() -> Bytes {
    std::fs::read(picture()).unwrap().into()
}

/// Sends a response in pieces of `step` bytes, which end inside characters too.
pub(crate) async fn in_pieces(
    client: &Client,
    image: ImageSource<Bytes>,
    response: &str,
    step: usize,
) -> (Vec<TokenReward>, Scored) {
    let mut item = client.open(Context::new(image), false).await.unwrap();
    for piece in response.as_bytes().chunks(step) {
        item.append(Bytes::copy_from_slice(piece), None).await;
    }
    item.close().await;
    let mut tokens = Vec::new();
    loop {
        match item.next().await {
            Event::Tokens(more) => tokens.extend(more),
            Event::Policy(_) => panic!("no policy tokens were given"),
            Event::Verdict(verdict) => return (tokens, verdict.unwrap()),
        }
    }
}

pub(crate) fn bits(tokens: &[TokenReward]) -> Vec<(u32, u32, u32, u32)> {
    let of =
        |t: &TokenReward| (t.span.start(), t.span.end(), t.reward.to_bits(), t.logit.to_bits());
    tokens.iter().map(of).collect()
}

#[tokio::test]
async fn a_response_in_pieces_has_the_bits_of_the_whole() {
    let server = Server::start(None, &["--workers", "2", "--threads", "1"]);
    let client = Client::connect(server.url()).await.unwrap();
    let digest = client.put_image(image()).await.unwrap();
    assert_eq!(client.has_images(&[digest, [0; 32]]).await.unwrap(), [true, false]);
    for response in RESPONSES {
        let whole = client.score(ScoreRequest::new(image(), response)).await.unwrap();
        let steps = (1..=response.len().min(24)).chain([1000]).map(|step| {
            let client = client.clone();
            tokio::spawn(async move {
                in_pieces(&client, ImageSource::Digest(digest), response, step).await
            })
        });
        for task in steps.collect::<Vec<_>>() {
            let (streamed, scored) = task.await.unwrap();
            assert_eq!(bits(&streamed), bits(&whole.tokens));
            assert_eq!(bits(&scored.tokens), bits(&whole.tokens));
            assert_eq!(scored.reward.to_bits(), whole.reward.to_bits());
            assert_eq!(
                (scored.sentences, scored.flagged),
                (whole.sentences.clone(), whole.flagged.clone())
            );
        }
    }
}

#[tokio::test]
async fn policy_tokens_get_the_least_reward_that_they_overlap() {
    let server = Server::start(None, &[]);
    let client = Client::connect(server.url()).await.unwrap();
    let response = "A small red star. No ring.";
    let plain = client.score(ScoreRequest::new(image(), response)).await.unwrap();
    // As GPT-2's tokenizer spells, with the policy's own end.
    let pieces = [
        "A",
        "\u{120}small",
        "\u{120}red",
        "\u{120}star",
        ".",
        "\u{120}No",
        "\u{120}ring",
        ".",
        "<|endoftext|>",
    ];
    let mut request = ScoreRequest::new(image(), response);
    let spelled = pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect();
    request.policy = Some(PolicyTokens::Pieces(spelled));
    request.context.options.sentences = SentenceRule::Unicode;
    let scored = client.score(request).await.unwrap();
    let policy = scored.policy.unwrap();
    assert_eq!(policy.len(), pieces.len());
    for token in &policy[..8] {
        let least = plain.tokens.iter().filter(|t| t.span.overlaps(token.span));
        let least = least.map(|t| t.reward).fold(f32::INFINITY, f32::min);
        assert_eq!(token.covered.unwrap().reward.to_bits(), least.to_bits());
        assert!((token.coverage - 1.0).abs() < f32::EPSILON);
    }
    let PolicyReward { covered, coverage, .. } = policy[8];
    assert!(covered.is_none() && coverage == 0.0);
    assert_eq!((scored.sentences.len(), scored.reward.to_bits()), (2, plain.reward.to_bits()));

    let mut wrong = ScoreRequest::new(image(), response);
    wrong.policy = Some(PolicyTokens::Ends(vec![1, 5]));
    let error = client.score(wrong).await.unwrap_err().to_string();
    assert!(error.contains("score.policy") && error.contains("policy_tokens_mismatch"), "{error}");
}

#[tokio::test]
async fn the_load_generator_accounts_for_every_item() {
    let server = Server::start(None, &[]);
    let report = json(&[
        "bench",
        "--target",
        &server.url(),
        "--rate",
        "40",
        "--group",
        "4",
        "--seconds",
        "2",
        "--warm-up",
        "1",
        "--copy-every",
        "5",
        "--format",
        "json",
    ]);
    assert_eq!(report["passes"], true);
    let counts = &report["counts"];
    let copies = counts["attempts"].as_u64().unwrap() - counts["sent"].as_u64().unwrap();
    assert_eq!(counts["valid"], counts["attempts"]);
    assert!(copies > 0 && counts["duplicates_joined"].as_u64().unwrap() >= copies);
    assert!(report["admitted"]["p99_ms"].as_f64().unwrap() > 0.0);
}
