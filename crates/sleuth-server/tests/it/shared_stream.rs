//! `sleuth-client` against this server.

use std::time::Duration;

use futures::future::join_all;
use sleuth_client::{Client, ClientError, ClientSettings, RetrySettings};
use sleuth_core::{ErrorClass, ScoreRequest};

use crate::harness::{Harness, request, settings, start};

fn client(harness: &Harness) -> Client {
    Client::from_channel(harness.channel.clone(), ClientSettings::default())
}

#[tokio::test]
async fn every_caller_gets_its_own_result() {
    let harness = start(settings()).await;
    let client = client(&harness);
    let requests = (1..60).map(|n| {
        let client = client.clone();
        async move { client.score(request(&format!("tokens {n}"))).await.unwrap().tokens.len() }
    });
    assert_eq!(join_all(requests).await, (1..60).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_refusal_names_class_reason_and_field() {
    let harness = start(settings()).await;
    let empty = ScoreRequest { response: String::new(), ..request("") };
    let error = client(&harness).score(empty).await.unwrap_err();
    assert!(!error.is_retryable());
    let ClientError::Refused(refusal) = error else { panic!("{error:?}") };
    assert_eq!(refusal.class, ErrorClass::InvalidRequest);
    assert_eq!(refusal.reason, "response_empty");
    assert_eq!(refusal.field.as_deref(), Some("score.response"));

    let error = client(&harness).score(request("full")).await.unwrap_err();
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_caller_who_stops_waiting_cancels_its_item() {
    let harness = start(settings()).await;
    let client = client(&harness);
    let given_up = tokio::time::timeout(Duration::from_millis(50), client.score(request("gate")));
    assert!(given_up.await.is_err());
    harness.until(|f| f.dropped() == 1).await;
    assert_eq!(client.score(request("a cat")).await.unwrap().tokens.len(), 2);
}

#[tokio::test]
async fn items_beyond_the_flight_limit_wait_here() {
    let harness = start(settings()).await;
    let settings = ClientSettings { max_in_flight: 2, ..ClientSettings::default() };
    let client = Client::from_channel(harness.channel.clone(), settings);
    let all = tokio::spawn(join_all((0..5).map(|_| {
        let client = client.clone();
        async move { client.score(request("gate")).await }
    })));
    harness.until(|f| f.started() == 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(harness.fake.started(), 2);
    harness.fake.open_gate(5);
    assert!(all.await.unwrap().into_iter().all(|r| r.is_ok()));
}

#[tokio::test]
async fn a_batch_keeps_its_order_and_its_failures() {
    let harness = start(settings()).await;
    let requests = ["tokens 2", "nan", "tokens 4"].map(request).to_vec();
    let results = client(&harness).score_batch(requests).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap().tokens.len(), 2);
    assert!(matches!(&results[1], Err(ClientError::Refused(r)) if r.reason == "reward_not_finite"));
    assert_eq!(results[2].as_ref().unwrap().tokens.len(), 4);
    let error = client(&harness).score_batch(Vec::new()).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(r) if r.field.as_deref() == Some("items")));
}

#[tokio::test]
async fn the_model_and_its_tokens_come_across() {
    let harness = start(settings()).await;
    let client = client(&harness);
    let card = client.model().await.unwrap();
    assert_eq!((card.name.as_str(), card.adapter.as_deref()), ("fake", Some("tldr")));
    assert!(card.causal_suffix);
    let tokens = client.tokenize("abc").await.unwrap();
    assert_eq!(tokens.ids, [97, 98, 99]);
    assert_eq!(tokens.spans[2].range(), 2..3);
}

#[tokio::test(start_paused = true)]
async fn items_cut_off_with_their_server_may_be_sent_again() {
    let mut harness = start(settings()).await;
    let settings = ClientSettings { retry: RetrySettings::NEVER, ..ClientSettings::default() };
    let client = Client::from_channel(harness.channel.clone(), settings);
    let waiting = tokio::spawn(async move { client.score(request("gate")).await });
    harness.until(|f| f.started() == 1).await;
    harness.stop();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.is_retryable());
    let ClientError::StreamEnded(Some(refusal)) = error else { panic!("{error:?}") };
    assert_eq!(refusal.class, ErrorClass::Draining);
}
