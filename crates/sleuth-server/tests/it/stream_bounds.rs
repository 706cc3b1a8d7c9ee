use std::time::Duration;

use sleuth_proto::v1;
use sleuth_proto::v1::ErrorClass;
use sleuth_proto::v1::score_tokens_request::Kind;
use sleuth_server::ServerSettings;
use tonic::Code;

use crate::harness::{id, invalid, item, settings, start, valid, wire_key};

#[tokio::test]
async fn a_full_stream_waits_and_still_reads_a_cancel() {
    let harness = start(settings()).await;
    let mut caller = harness.caller().await;
    for n in 0..8 {
        caller.score(&n.to_string(), "gate").await;
    }
    harness.until(|f| f.started() == 8).await;
    caller.send(Kind::Cancel(wire_key("3"))).await;
    assert_eq!(id(&caller.verdict().await), "3");

    for n in 8..12 {
        caller.score(&n.to_string(), "gate").await;
    }
    harness.until(|f| f.started() == 9).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(harness.fake.started(), 9, "eight run at once, and one is done");
    harness.fake.open_gate(12);
    assert_eq!(caller.rest().await.len(), 11);
}

#[tokio::test(start_paused = true)]
async fn an_item_that_waits_for_a_slot_keeps_its_deadline() {
    let harness = start(settings()).await;
    let mut caller = harness.caller().await;
    for n in 0..8 {
        caller.score(&n.to_string(), "gate").await;
    }
    let mut late = item("late", "a cat");
    late.context.as_mut().unwrap().timeout =
        Some(prost_types::Duration { seconds: 0, nanos: 200_000_000 });
    caller.send(Kind::Score(late)).await;
    let verdict = caller.verdict().await;
    assert_eq!(id(&verdict), "late");
    assert_eq!(invalid(verdict).class, ErrorClass::Deadline as i32);
    assert_eq!(harness.fake.started(), 8);
    harness.fake.open_gate(8);
    assert_eq!(caller.rest().await.len(), 8);
}

#[tokio::test]
async fn a_caller_who_does_not_read_is_not_read_from() {
    let harness = start(settings()).await;
    let mut caller = harness.caller().await;
    let requests = caller.requests.clone().unwrap();
    let sender = tokio::spawn(async move {
        for n in 0..150 {
            // Many tokens each, so that replies fill every window on their way.
            let kind = Some(Kind::Score(item(&n.to_string(), "tokens 5000")));
            requests.send(v1::ScoreTokensRequest { kind }).await.unwrap();
        }
    });
    harness.until(|f| f.finished() >= 8).await;
    let mut before = usize::MAX;
    while harness.fake.finished() != before {
        before = harness.fake.finished();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(before < 100, "{before} items were scored for a caller who reads nothing");

    let verdicts = caller.rest().await;
    sender.await.unwrap();
    assert_eq!(verdicts.len(), 150);
    assert!(verdicts.into_iter().all(|v| valid(v).tokens == 5000));
}

#[tokio::test]
async fn work_is_dropped_when_the_caller_goes_away() {
    let harness = start(settings()).await;
    let caller = harness.caller().await;
    for n in 0..12 {
        caller.score(&n.to_string(), "gate").await;
    }
    harness.until(|f| f.started() == 8).await;
    drop(caller);
    harness.until(|f| f.dropped() == 8).await;
    assert_eq!((harness.fake.started(), harness.fake.finished()), (8, 0));

    let mut other = harness.caller().await;
    other.score("a", "a cat").await;
    valid(other.verdict().await);
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_stream_with_a_status() {
    let harness = start(settings()).await;
    let mut caller = harness.caller().await;
    let mut heavy = item("heavy", "a cat");
    let data = v1::image::Source::Data(vec![0; 100 << 10].into());
    heavy.context.as_mut().unwrap().image = Some(v1::Image { source: Some(data) });
    // Over the item limit, within the message limit: a verdict.
    caller.send(Kind::Score(heavy.clone())).await;
    let refused = invalid(caller.verdict().await);
    assert_eq!(refused.class, ErrorClass::TooLarge as i32);
    assert_eq!(refused.reason, "image_too_large");

    let data = v1::image::Source::Data(vec![0; 200 << 10].into());
    heavy.context.as_mut().unwrap().image = Some(v1::Image { source: Some(data) });
    caller.send(Kind::Score(heavy)).await;
    assert_eq!(caller.reply().await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test]
async fn bytes_over_the_budget_are_refused_until_there_is_room() {
    let settings = ServerSettings { max_unfinished_bytes: 0, ..settings() };
    let harness = start(settings).await;
    let mut caller = harness.caller().await;
    let heavy = |id: &str| {
        let mut heavy = item(id, "gate");
        let data = v1::image::Source::Data(vec![0; 40 << 10].into());
        heavy.context.as_mut().unwrap().image = Some(v1::Image { source: Some(data) });
        Kind::Score(heavy)
    };
    caller.send(heavy("a")).await;
    caller.send(heavy("b")).await;
    let verdict = caller.verdict().await;
    assert_eq!(id(&verdict), "b");
    let refused = invalid(verdict);
    assert_eq!((refused.reason.as_str(), refused.retryable), ("queue_full", true));
    assert!(refused.retry_after.is_some());
    harness.fake.open_gate(2);
    assert_eq!(id(&caller.verdict().await), "a");
    caller.send(heavy("b")).await;
    let last = caller.verdict().await;
    assert_eq!(valid(last).tokens, 2);
}
