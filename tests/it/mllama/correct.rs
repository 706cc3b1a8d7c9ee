//! Correct with the corrector `builtin` of a Llama 3.2 Vision folder. Its weights are random, so its
//! texts mean nothing; what holds is the protocol.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use sleuth_client::{Client, CorrectReply, Finished};
use sleuth_core::{CorrectRequest, CorrectorKind, GuidanceLevel, Proposal, ScoreRequest};

use super::folder;
use crate::command::{path, picture, run, stderr};
use crate::server::Server;

const TEXT: &str = "The picture shows three red circles above a small blue square. There is a dog on \
                    the left and the sign says OPEN.";

fn request(corrector: CorrectorKind, guidance: GuidanceLevel) -> CorrectRequest<Bytes> {
    let image = Bytes::from(fs::read(picture()).unwrap());
    let item = ScoreRequest::new(image, TEXT);
    CorrectRequest { corrector, guidance, max_candidates: 4, ..CorrectRequest::new(item) }
}

async fn replies(client: &Client, request: CorrectRequest<Bytes>) -> Vec<CorrectReply> {
    let mut correcting = client.correct(request).await.unwrap();
    let mut seen = Vec::new();
    while let Some(reply) = correcting.next().await.unwrap() {
        seen.push(reply);
    }
    seen
}

/// What every correction keeps to; how many repairs were proposed, and the end.
fn check(seen: &[CorrectReply]) -> (usize, &Finished) {
    let Some((CorrectReply::Scored { words, .. }, rest)) = seen.split_first() else {
        panic!("{seen:?}")
    };
    assert!(!words.is_empty(), "a random head flags something");
    let Some((CorrectReply::Final(end), between)) = rest.split_last() else { panic!("{seen:?}") };
    let (mut proposed, mut rescored) = (0, 0);
    for reply in between {
        match reply {
            CorrectReply::Proposed(proposed_now) => {
                let Proposal::Repair { response, .. } = &proposed_now.proposal else {
                    panic!("{reply:?}")
                };
                assert_ne!(response, TEXT);
                proposed += 1;
            }
            CorrectReply::Rescored { .. } => rescored += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(proposed, rescored, "each proposal is scored");
    let used = end.outcome.as_ref().unwrap();
    assert!(used.reward >= used.reward_before);
    (proposed, end)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_scores_proposes_scores_again_and_ends() {
    let model = folder();
    let arguments = ["--model", path(&model), "--corrector-memory", "2048", "--threads", "1"];
    let mut server = Server::start(None, &arguments);
    let client = Client::connect(server.url()).await.unwrap();
    let asked = request(CorrectorKind::Builtin, GuidanceLevel::Token);
    let first = replies(&client, asked.clone()).await;
    let (proposed, end) = check(&first);
    assert!(proposed > 0, "{first:?}");
    assert!(end.rounds >= 1);
    // The same seed writes the same, also beside others.
    let (again, anew) = tokio::join!(
        replies(&client, asked.clone()),
        replies(&client, request(CorrectorKind::Builtin, GuidanceLevel::Response))
    );
    assert_eq!(format!("{:?}", texts(&again)), format!("{:?}", texts(&first)));
    check(&anew);

    // Given up in the middle: the server has room for the next, and drains.
    let mut given_up = client.correct(asked.clone()).await.unwrap();
    assert!(matches!(given_up.next().await.unwrap(), Some(CorrectReply::Scored { .. })));
    drop(given_up);
    // Too late before it began: a failure or an end that says so, never a lost call.
    let mut late = asked.clone();
    late.item.context.timeout = Some(Duration::from_millis(1));
    let late = match client.correct(late).await {
        Ok(correcting) => correcting.finished().await,
        Err(error) => Err(error),
    };
    let told = |end: Finished| end.outcome.map_or(true, |used| used.stopped.is_some());
    assert!(late.map_or(true, told));
    assert_eq!(texts(&replies(&client, asked).await), texts(&first));
    assert!(server.terminate().success());
}

/// What was proposed, in order.
fn texts(seen: &[CorrectReply]) -> Vec<String> {
    let proposal = |reply: &CorrectReply| match reply {
        CorrectReply::Proposed(proposed) => Some(format!("{:?}", proposed.proposal)),
        _ => None,
    };
    seen.iter().filter_map(proposal).collect()
}

#[test]
fn a_corrector_that_does_not_fit_its_memory_is_refused_with_the_figure() {
    let (model, image) = (folder(), picture());
    let refused = run(&[
        "correct",
        "--model",
        path(&model),
        "--image",
        path(&image),
        "--response",
        TEXT,
        "--corrector-memory",
        "64",
    ]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("where 64 MiB are allowed"), "{}", stderr(&refused));
}
