use std::time::Duration;

use bytes::Bytes;
use sleuth_proto::v1;
use sleuth_proto::v1::ErrorClass;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::harness::{id, invalid, item, settings, start, valid};

fn batch(responses: &[&str]) -> v1::ScoreBatchRequest {
    v1::ScoreBatchRequest { items: responses.iter().map(|r| item(r, r)).collect() }
}

#[tokio::test]
async fn a_bad_item_leaves_the_others_as_they_are() {
    let harness = start(settings()).await;
    let mut request = batch(&["tokens 3", "bad", "panic", "tokens 40", "full"]);
    request.items[1].response = Bytes::from_static(b"\xff");
    request.items[3].context.as_mut().unwrap().key = None;
    let reply = harness.service().score_batch(request).await.unwrap().into_inner();
    assert_eq!(reply.results.len(), 5);
    let verdicts: Vec<_> = reply.results.iter().map(|r| r.verdict.clone().unwrap()).collect();
    assert_eq!(
        verdicts.iter().map(id).collect::<Vec<_>>(),
        ["tokens 3", "bad", "panic", "", "full"]
    );

    assert_eq!(valid(verdicts[0].clone()).tokens, 3);
    assert_eq!(reply.results[0].scores.as_ref().unwrap().reward.len(), 3);
    let bad = invalid(verdicts[1].clone());
    assert_eq!(
        (bad.reason.as_str(), bad.field.as_str()),
        ("response_not_utf8", "items[1].response")
    );
    assert!(reply.results[1].scores.is_none());
    assert_eq!(invalid(verdicts[2].clone()).class, ErrorClass::ModelFailure as i32);
    assert_eq!(reply.results[3].scores.as_ref().unwrap().reward.len(), 40);
    assert_eq!(invalid(verdicts[4].clone()).class, ErrorClass::Overload as i32);
}

#[tokio::test]
async fn a_batch_of_no_or_too_many_items_is_refused_as_a_whole() {
    let harness = start(settings()).await;
    for request in [batch(&[]), batch(&["a"; 9])] {
        let status = harness.service().score_batch(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "items");
    }
    assert_eq!(harness.fake.started(), 0);
}

#[tokio::test]
async fn a_batch_that_nothing_has_room_for_is_unavailable() {
    let harness = start(settings()).await;
    let status = harness.service().score_batch(batch(&["full", "full"])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let details = status.get_error_details();
    assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(3)));
    assert_eq!(details.error_info().unwrap().reason, "QUEUE_FULL");
}

#[tokio::test(start_paused = true)]
async fn a_calls_own_deadline_becomes_verdicts() {
    let harness = start(settings()).await;
    let mut request = Request::new(batch(&["sleep 10", "sleep 5000"]));
    request.set_timeout(Duration::from_secs(2));
    let reply = harness.service().score_batch(request).await.unwrap().into_inner();
    valid(reply.results[0].verdict.clone().unwrap());
    let late = invalid(reply.results[1].verdict.clone().unwrap());
    assert_eq!(late.class, ErrorClass::Deadline as i32);
}

#[tokio::test]
async fn items_of_a_batch_run_at_once() {
    let harness = start(settings()).await;
    let mut service = harness.service();
    let call = tokio::spawn(async move { service.score_batch(batch(&["gate"; 8])).await });
    harness.until(|f| f.started() == 8).await;
    harness.fake.open_gate(8);
    assert_eq!(call.await.unwrap().unwrap().into_inner().results.len(), 8);
}
