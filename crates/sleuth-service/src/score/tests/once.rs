use std::time::Duration;

use sleuth_core::{ErrorClass, PolicyTokens, Realignment, Reason};
use sleuth_engine::EngineSettings;
use sleuth_engine::fake::Act;

use super::bench::{Bench, pass, request};
use super::*;
use crate::{IdempotencySettings, IdempotencyStats};

fn keyed(response: &str, key: &str) -> ScoreRequest<Bytes> {
    let mut request = request(b"cat", response);
    request.context.idempotency_key = Some(key.to_owned());
    request
}

type Change<'a> = &'a dyn Fn(&mut ScoreRequest<Bytes>);

fn stats(bench: &Bench) -> IdempotencyStats {
    bench.service.stats().idempotency
}

fn under_way(bench: &Bench) -> usize {
    bench.service.shared.once.under_way()
}

#[tokio::test]
async fn the_same_key_is_computed_once_whenever_it_is_asked_for() {
    let bench = Bench::new([]).await;
    bench.remote.close_gate();
    let waiting: Vec<_> = (0..4).map(|_| bench.spawn(keyed("fine", "k"))).collect();
    bench.begun(1).await;
    bench.until(|b| stats(b).joined == 3).await;
    bench.remote.open_gate();
    let mut bits = Vec::new();
    for task in waiting {
        let scored = task.await.unwrap().unwrap();
        assert_eq!(scored.duplicates_joined, 3);
        bits.push(scored.reward.to_bits());
    }
    let later = bench.score(keyed("fine", "k")).await.unwrap();
    assert_eq!(later.duplicates_joined, 4);
    bits.push(later.reward.to_bits());
    bits.dedup();
    assert_eq!(bits.len(), 1);
    assert_eq!(bench.remote.batches().len(), 1);
    assert_eq!((stats(&bench).replayed, stats(&bench).stored, under_way(&bench)), (1, 1, 0));
    bench.assert_nothing_is_held();
}

#[tokio::test]
async fn another_item_under_the_same_key_is_refused_and_harms_nobody() {
    let bench = Bench::new([]).await;
    bench.remote.close_gate();
    let running = bench.spawn(keyed("fine", "k"));
    bench.begun(1).await;
    let others: [Change<'_>; 4] = [
        &|r| r.response = "other".to_owned(),
        &|r| r.context.prompt = Some("other".to_owned()),
        &|r| r.context.image = ImageSource::Data(Bytes::from_static(b"dog")),
        &|r| r.context.options.realignment = Realignment::Mean,
    ];
    for other in others {
        let mut asked = keyed("fine", "k");
        other(&mut asked);
        let failure = bench.score(asked).await.unwrap_err();
        assert_eq!(failure.reason, Reason::IDEMPOTENCY_CONFLICT);
        assert_eq!(failure.field, Some("context.idempotency_key"));
    }
    bench.remote.open_gate();
    assert!(running.await.unwrap().is_ok());
    assert_eq!(stats(&bench).conflicts, 4);
    let tenant = Caller::new("another tenant");
    let mut asked = keyed("other", "k");
    asked.context.timeout = Some(Duration::from_secs(5));
    assert!(bench.service.score(&tenant, asked).await.is_ok(), "keys are a tenant's own");
}

#[tokio::test]
async fn policy_tokens_priority_and_timeout_are_no_part_of_an_item() {
    let bench = Bench::new([]).await;
    bench.score(keyed("fine", "k")).await.unwrap();
    let mut asked = keyed("fine", "k");
    asked.policy = Some(PolicyTokens::Ends(vec![2, 4, 4]));
    asked.context.priority = 3;
    asked.context.timeout = Some(Duration::from_secs(9));
    let scored = bench.score(asked).await.unwrap();
    let policy = scored.policy.unwrap();
    assert_eq!(policy.len(), 3);
    assert_eq!((policy[0].coverage, policy[2].coverage), (1.0, 0.0));
    assert!(policy[2].covered.is_none());
    assert_eq!(bench.remote.batches().len(), 1);
}

#[tokio::test]
async fn a_cut_connection_drops_what_waits_and_finishes_what_runs() {
    let bench = Bench::new([]).await;
    bench.remote.close_gate();
    let running = bench.spawn(keyed("runs", "r"));
    bench.begun(1).await;
    let waiting = bench.spawn(keyed("waits", "w"));
    bench.until(|b| b.queued() == 1).await;
    for task in [running, waiting] {
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    bench.until(|b| stats(b).given_up == 1).await;
    assert_eq!(bench.queued(), 0);
    bench.remote.open_gate();
    bench.until(|b| stats(b).finished_alone == 1).await;
    assert_eq!(bench.score(keyed("runs", "r")).await.unwrap().duplicates_joined, 1);
    assert_eq!(bench.remote.batches().len(), 1);
    bench.score(keyed("waits", "w")).await.unwrap();
    assert_eq!(bench.remote.batches().len(), 2);
    assert_eq!(under_way(&bench), 0);
}

#[tokio::test]
async fn one_that_gives_up_does_not_end_the_work_of_the_others() {
    let bench = Bench::new([]).await;
    let go = bench.prepare.hold_decoding();
    let first = bench.spawn(keyed("fine", "k"));
    bench.until(|b| b.prepare.decoded() == 1).await;
    let second = bench.spawn(keyed("fine", "k"));
    bench.until(|b| stats(b).joined == 1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    go.send(()).unwrap();
    assert!(second.await.unwrap().is_ok());
    assert_eq!(bench.remote.batches().len(), 1);
    assert_eq!(bench.prepare.decoded(), 1);
}

#[tokio::test]
async fn what_may_succeed_later_frees_its_key_and_what_never_will_keeps_it() {
    let bench = Bench::new([Act::Panic]).await;
    let failure = bench.score(keyed("fine", "k")).await.unwrap_err();
    assert_eq!(failure.class, ErrorClass::ModelFailure);
    assert!(bench.score(keyed("fine", "k")).await.is_ok());

    let mut damaged = keyed("fine", "bad");
    damaged.context.image = ImageSource::Data(Bytes::from_static(b"damaged"));
    for _ in 0..3 {
        let failure = bench.score(damaged.clone()).await.unwrap_err();
        assert_eq!(failure.reason, Reason::IMAGE_DAMAGED);
    }
    assert_eq!(bench.prepare.decoded(), 2, "the damaged image was decoded once");
    assert_eq!((stats(&bench).replayed, under_way(&bench)), (2, 0));
}

#[tokio::test]
async fn a_full_queue_frees_the_key() {
    let engine = EngineSettings { max_queue_items: 1, ..EngineSettings::default() };
    let bench = Bench::with([], engine, ServiceSettings::default()).await;
    bench.remote.close_gate();
    let running = bench.spawn(request(b"cat", "x"));
    bench.begun(1).await;
    let waiting = bench.spawn(request(b"cat", "y"));
    bench.until(|b| b.queued() == 1).await;
    let failure = bench.score(keyed("z", "k")).await.unwrap_err();
    assert!(failure.is_retryable());
    assert_eq!(under_way(&bench), 0);
    bench.remote.open_gate();
    for task in [running, waiting] {
        task.await.unwrap().unwrap();
    }
    assert!(bench.score(keyed("z", "k")).await.is_ok());
}

#[tokio::test]
async fn verdicts_are_forgotten_by_age_and_by_bytes() {
    let keep = Duration::from_mins(1);
    let idempotency = IdempotencySettings { max_bytes: 3000, keep };
    let settings = ServiceSettings { idempotency, ..ServiceSettings::default() };
    let bench = Bench::with([], EngineSettings::default(), settings).await;
    for n in 0..20 {
        bench.score(keyed("fine", &n.to_string())).await.unwrap();
        assert!(stats(&bench).stored_bytes <= 3000);
    }
    assert!(stats(&bench).stored < 6);
    bench.score(keyed("fine", "19")).await.unwrap();
    assert_eq!(stats(&bench).replayed, 1);
    pass(keep + Duration::from_secs(1)).await;
    bench.score(keyed("fine", "19")).await.unwrap();
    assert_eq!((stats(&bench).replayed, stats(&bench).stored), (1, 1));
}

#[tokio::test]
async fn a_waiters_deadline_is_its_own() {
    let bench = Bench::new([]).await;
    bench.remote.close_gate();
    let patient = bench.spawn(keyed("fine", "k"));
    bench.begun(1).await;
    let mut hasty = keyed("fine", "k");
    hasty.context.timeout = Some(Duration::from_millis(50));
    let failure = bench.score(hasty).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DEADLINE_PASSED);
    bench.remote.open_gate();
    assert!(patient.await.unwrap().is_ok());
}
