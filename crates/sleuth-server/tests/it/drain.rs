use std::time::Duration;

use sleuth_proto::v1::admin_service_client::AdminServiceClient;
use sleuth_proto::v1::score_tokens_response::Kind as ReplyKind;
use sleuth_proto::v1::{self, ErrorClass, NoticeKind};
use sleuth_server::{Drained, ServerSettings};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{id, invalid, settings, start, valid};

#[tokio::test]
async fn unfinished_items_finish_and_new_ones_are_refused() {
    let mut harness = start(settings()).await;
    let mut caller = harness.caller().await;
    caller.score("old", "gate").await;
    harness.until(|f| f.started() == 1).await;
    harness.stop();
    let Some(ReplyKind::Notice(notice)) = caller.reply().await.unwrap() else {
        panic!("a notice comes first");
    };
    assert_eq!(notice.kind, NoticeKind::Draining as i32);
    caller.score("new", "a cat").await;
    let verdict = caller.verdict().await;
    assert_eq!(id(&verdict), "new");
    let refused = invalid(verdict);
    assert_eq!(refused.class, ErrorClass::Draining as i32);
    assert!(refused.retryable && refused.retry_after.is_some());
    harness.fake.open_gate(1);
    let verdict = caller.verdict().await;
    assert_eq!(id(&verdict), "old");
    valid(verdict);
    // The server ends the stream, although the caller has not closed its side.
    assert_eq!(caller.reply().await.unwrap(), None);
    assert_eq!(harness.stopped().await, Drained::Complete);
}

#[tokio::test(start_paused = true)]
async fn what_is_unfinished_at_the_deadline_is_cut_off() {
    let mut harness = start(settings()).await;
    let mut caller = harness.caller().await;
    caller.score("a", "gate").await;
    harness.until(|f| f.started() == 1).await;
    let begun = tokio::time::Instant::now();
    harness.stop();
    assert!(matches!(caller.reply().await.unwrap(), Some(ReplyKind::Notice(_))));
    assert_eq!(caller.reply().await.unwrap_err().code(), tonic::Code::Unavailable);
    assert!(begun.elapsed() >= Duration::from_secs(5));
    harness.until(|f| f.dropped() == 1).await;
    assert_eq!(harness.stopped().await, Drained::CutOff { calls: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_health_watcher_sees_the_drain_and_does_not_hold_it_up() {
    let settings = ServerSettings { drain_deadline: Duration::from_hours(1), ..settings() };
    let mut harness = start(settings).await;
    let mut health = HealthClient::new(harness.channel.clone());
    let service = "sleuth.v1.RewardService".to_owned();
    let mut watch = health.watch(HealthCheckRequest { service }).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status, ServingStatus::Serving as i32);
    let begun = tokio::time::Instant::now();
    harness.stop();
    let then = watch.message().await.unwrap().unwrap();
    assert_eq!(then.status, ServingStatus::NotServing as i32);
    assert_eq!(harness.stopped().await, Drained::Complete);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn an_operator_drains_and_the_process_stays() {
    let mut harness = start(settings()).await;
    let caller = harness.caller().await;
    caller.score("a", "gate").await;
    harness.until(|f| f.started() == 1).await;
    let mut admin = AdminServiceClient::new(harness.channel.clone());
    let deadline = Some(prost_types::Duration { seconds: 2, nanos: 0 });
    let drained = admin.drain(v1::DrainRequest { deadline }).await.unwrap().into_inner();
    assert_eq!(drained.abandoned_items, 1);
    let again = admin.drain(v1::DrainRequest::default()).await.unwrap().into_inner();
    assert_eq!(again.abandoned_items, 0, "nothing is left, and the server still answers");
    let mut health = HealthClient::new(harness.channel.clone());
    let status = health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status;
    assert_eq!(status, ServingStatus::NotServing as i32);
    let deadline = Some(prost_types::Duration { seconds: -2, nanos: 0 });
    let refused = admin.drain(v1::DrainRequest { deadline }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    harness.stop();
    assert_eq!(harness.stopped().await, Drained::Complete);
}
