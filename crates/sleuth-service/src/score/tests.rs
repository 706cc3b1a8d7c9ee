use std::num::NonZeroUsize;

use proptest::prelude::*;
use sleuth_core::{Aggregation, ErrorClass, Options, Reason};
use sleuth_engine::fake::{Act, logit};
use sleuth_engine::{EngineSettings, ModelFailure};

use self::bench::{Bench, request};
use super::*;
use crate::fake::card;
use crate::intake::Held;

mod bench;
mod groups;
mod images;
mod once;
mod open;

#[tokio::test]
async fn an_item_is_scored_with_the_models_own_choices() {
    let bench = Bench::new([]).await;
    let mut asked = request(b"cat", "a b.");
    asked.context.prompt = None;
    let got = bench.score(asked).await.unwrap();
    let logits: Vec<f32> = got.tokens.iter().map(|t| t.logit).collect();
    assert_eq!(logits, b"a b.".map(|byte| logit(u32::from(byte))));
    let expected = Aggregation::MeanLog.apply(&got.tokens, 0.5).unwrap();
    assert_eq!(got.reward.to_bits(), expected.to_bits());
    assert_eq!((got.sentences.len(), got.version.as_str()), (1, "v1"));
    assert!(got.batch_invariant);
    let prompt: Vec<u32> = bench.remote.batches()[0][0].prompt.to_vec();
    assert_eq!(prompt, b"own".map(u32::from));
    bench.assert_nothing_is_held();
}

#[tokio::test]
async fn each_bad_request_names_its_class_reason_and_field() {
    use ErrorClass::{InvalidRequest, TooLarge, Unknown, VersionChanged};
    let bench = Bench::new([]).await;
    let with = |change: &dyn Fn(&mut Context<Bytes>)| {
        let mut request = request(b"cat", "fine");
        change(&mut request.context);
        request
    };
    let threshold = |t| {
        let options = Options { threshold: Some(t), ..Options::default() };
        let field = "context.options.threshold";
        (with(&|c| c.options = options), InvalidRequest, Reason::FIELD_INVALID, field)
    };
    let adapter = with(&|c| c.adapter = Some("other".to_owned()));
    let version = with(&|c| c.required_version = Some("v0".to_owned()));
    let prompt = with(&|c| c.prompt = Some("p".repeat(17)));
    let long = "r".repeat(17);
    let cases = [
        threshold(f32::NAN),
        threshold(f32::INFINITY),
        threshold(-0.1),
        threshold(1.1),
        (request(b"cat", ""), InvalidRequest, Reason::RESPONSE_EMPTY, "response"),
        (request(b"", "fine"), InvalidRequest, Reason::IMAGE_MISSING, "context.image"),
        (adapter, Unknown, Reason::ADAPTER_UNKNOWN, "context.adapter"),
        (version, VersionChanged, Reason::VERSION_MISMATCH, "context.required_version"),
        (prompt, TooLarge, Reason::PROMPT_TOO_LARGE, "context.prompt"),
        (request(b"cat", &long), TooLarge, Reason::RESPONSE_TOO_LARGE, "response"),
        (request(b"damaged", "fine"), InvalidRequest, Reason::IMAGE_DAMAGED, "context.image.data"),
    ];
    for (request, class, reason, field) in cases {
        let failure = bench.score(request).await.unwrap_err();
        assert_eq!((failure.class, failure.reason, failure.field), (class, reason, Some(field)));
        assert!(!failure.is_retryable());
    }
    assert_eq!(bench.prepare.decoded(), 1, "only the damaged image was worth decoding");
    assert!(bench.remote.batches().is_empty());
    bench.assert_nothing_is_held();
}

#[tokio::test]
async fn the_loaded_adapter_and_version_are_accepted_by_name() {
    let bench = Bench::new([]).await;
    for (adapter, version) in [(None, None), (Some(""), Some("")), (Some("tldr"), Some("v1"))] {
        let mut asked = request(b"cat", "fine");
        asked.context.adapter = adapter.map(str::to_owned);
        asked.context.required_version = version.map(str::to_owned);
        assert!(bench.score(asked).await.is_ok());
    }
}

#[tokio::test]
async fn every_failure_of_the_engine_has_its_class() {
    let forward = ModelFailure::Forward("secret".to_owned());
    let script = [
        Act::Panic,
        Act::Fail(vec![(0, forward)]),
        Act::Fail(vec![(0, ModelFailure::NotFinite)]),
        Act::Give(vec![f32::NAN]),
    ];
    let bench = Bench::new(script).await;
    for reason in
        [Reason::WORKER_FAILED, Reason::WORKER_FAILED, Reason::NOT_FINITE, Reason::NOT_FINITE]
    {
        let failure = bench.score(request(b"cat", "x")).await.unwrap_err();
        assert_eq!((failure.class, failure.reason), (ErrorClass::ModelFailure, reason));
        assert!(!failure.detail.contains("secret"));
    }
    bench.engine.close();
    let failure = bench.score(request(b"cat", "x")).await.unwrap_err();
    assert_eq!((failure.class, failure.reason), (ErrorClass::Draining, Reason::SERVER_DRAINING));
    assert_eq!(bench.prepare.decoded(), 1, "pixels are kept");
}

#[tokio::test]
async fn a_panic_while_decoding_fails_the_item_alone() {
    let bench = Bench::new([]).await;
    let failure = bench.score(request(b"panic", "x")).await.unwrap_err();
    assert_eq!((failure.class, failure.reason), (ErrorClass::ModelFailure, Reason::WORKER_FAILED));
    assert!(bench.score(request(b"cat", "x")).await.is_ok());
    bench.assert_nothing_is_held();
}

#[tokio::test]
async fn a_full_queue_refuses_before_the_image_is_decoded() {
    let engine = EngineSettings { max_queue_items: 1, ..EngineSettings::default() };
    let bench = Bench::with([], engine, ServiceSettings::default()).await;
    bench.remote.close_gate();
    let running = bench.spawn(request(b"cat", "x"));
    bench.begun(1).await;
    let waiting = bench.spawn(request(b"cat", "y"));
    bench.until(|b| b.queued() == 1).await;
    let failure = bench.score(request(b"dog", "z")).await.unwrap_err();
    assert_eq!((failure.class, failure.reason), (ErrorClass::Overload, Reason::QUEUE_FULL));
    assert!(failure.is_retryable() && failure.retry_after.is_some_and(|t| !t.is_zero()));
    assert_eq!(bench.prepare.decoded(), 1, "the refused image was not decoded");
    bench.remote.open_gate();
    assert!(running.await.unwrap().is_ok() && waiting.await.unwrap().is_ok());
    bench.assert_nothing_is_held();
}

#[tokio::test]
async fn what_waits_for_preparation_is_bounded() {
    let settings = ServiceSettings { max_preparing_items: 1, ..ServiceSettings::default() };
    let bench = Bench::with([], EngineSettings::default(), settings).await;
    let go = bench.prepare.hold_decoding();
    let first = bench.spawn(request(b"cat", "x"));
    bench.until(|b| b.prepare.decoded() == 1).await;
    let failure = bench.score(request(b"dog", "z")).await.unwrap_err();
    assert_eq!(failure.reason, Reason::QUEUE_FULL);
    go.send(()).unwrap();
    assert!(first.await.unwrap().is_ok());
    assert!(bench.score(request(b"dog", "z")).await.is_ok());
}

#[tokio::test]
async fn a_group_decodes_its_image_once_and_shares_a_batch() {
    let bench = Bench::new([]).await;
    bench.remote.close_gate();
    let first = bench.spawn(request(b"other", "x"));
    bench.begun(1).await;
    let go = bench.prepare.hold_decoding();
    let group: Vec<_> = ["a", "b", "c", "d"].map(|r| bench.spawn(request(b"cat", r))).into();
    bench.until(|b| b.queued() == 4).await;
    go.send(()).unwrap();
    bench.until(|b| b.service.shared.intake.held() == Held::default()).await;
    let late = bench.spawn(request(b"cat", "e"));
    bench.until(|b| b.queued() == 5 && b.service.shared.intake.held() == Held::default()).await;
    bench.remote.open_gate();
    for task in group.into_iter().chain([first, late]) {
        assert!(task.await.unwrap().is_ok());
    }
    assert_eq!(bench.prepare.decoded(), 2, "one for the group, one for the other image");
    assert_eq!(bench.remote.batches()[1].len(), 5);
    bench.assert_nothing_is_held();
}

#[tokio::test]
async fn an_item_given_up_while_decoding_does_not_end_the_decoding_for_its_group() {
    let bench = Bench::new([]).await;
    let go = bench.prepare.hold_decoding();
    let first = bench.spawn(request(b"cat", "x"));
    bench.until(|b| b.prepare.decoded() == 1).await;
    let second = bench.spawn(request(b"cat", "y"));
    bench.until(|b| b.queued() == 2).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(bench.queued(), 1);
    go.send(()).unwrap();
    assert!(second.await.unwrap().is_ok());
    assert_eq!(bench.prepare.decoded(), 1);
    bench.assert_nothing_is_held();
}

#[tokio::test]
async fn a_dropped_item_frees_all_it_held_at_every_stage() {
    let settings =
        ServiceSettings { prepare_threads: NonZeroUsize::MIN, ..ServiceSettings::default() };
    let bench = Bench::with([], EngineSettings::default(), settings).await;
    let go = bench.prepare.hold_decoding();
    let decoding = bench.spawn(request(b"cat", "x"));
    bench.until(|b| b.prepare.decoded() == 1).await;
    // The only thread is decoding, so this one waits for it.
    let waiting = bench.spawn(request(b"dog", "y"));
    bench.until(|b| b.service.shared.intake.held().items == 2).await;
    for task in [waiting, decoding] {
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    bench.assert_nothing_is_held();
    go.send(()).unwrap();
    bench.remote.close_gate();
    let running = bench.spawn(request(b"cat", "x"));
    bench.begun(1).await;
    let queued = bench.spawn(request(b"cat", "y"));
    bench.until(|b| b.queued() == 1).await;
    for task in [queued, running] {
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    bench.assert_nothing_is_held();
    bench.remote.open_gate();
    assert!(bench.score(request(b"cat", "z")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_deadline_counts_from_receipt_and_is_kept_to_the_moment() {
    let bench = Bench::new([]).await;
    bench.remote.close_gate();
    let began = Instant::now();
    let mut asked = request(b"cat", "x");
    asked.context.timeout = Some(Duration::from_secs(7));
    let failure = bench.score(asked).await.unwrap_err();
    assert_eq!((failure.class, failure.reason), (ErrorClass::Deadline, Reason::DEADLINE_PASSED));
    assert_eq!(began.elapsed().as_secs(), 7);
    bench.remote.open_gate();
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_limit_bounds_every_timeout() {
    let settings =
        ServiceSettings { max_timeout: Duration::from_secs(3), ..ServiceSettings::default() };
    let bench = Bench::with([], EngineSettings::default(), settings).await;
    bench.remote.close_gate();
    for timeout in [None, Some(Duration::MAX)] {
        let began = Instant::now();
        let mut asked = request(b"cat", "x");
        asked.context.timeout = timeout;
        let failure = bench.score(asked).await.unwrap_err();
        assert_eq!(failure.class, ErrorClass::Deadline);
        assert_eq!(began.elapsed().as_secs(), 3);
    }
    bench.remote.open_gate();
}

#[tokio::test]
async fn a_text_is_tokenised_as_a_response() {
    let bench = Bench::new([]).await;
    assert_eq!(bench.service.tokenize("ab".to_owned()).await.unwrap().encoded.ids, [97, 98]);
    assert_eq!(*bench.service.model(), card());
}

fn any_logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        20 => any::<f32>(),
        20 => -10f32..10.0,
        1 => prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_item_ends_with_finite_rewards_or_a_failure(
        mut logits in proptest::collection::vec(any_logit(), 6),
        response in "[a-z.]{0,5}",
        other_length in proptest::option::weighted(0.1, 0usize..6),
        threshold in proptest::option::of(-0.5f32..1.5),
        how in proptest::sample::select(Aggregation::ALL.to_vec()),
    ) {
        logits.truncate(other_length.unwrap_or(response.len()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let verdict = runtime.block_on(async {
            let bench = Bench::new([Act::Give(logits.clone())]).await;
            let options = Options { threshold, aggregation: how, ..Options::default() };
            let mut asked = request(b"cat", &response);
            asked.context.options = options;
            let verdict = bench.score(asked).await;
            bench.assert_nothing_is_held();
            verdict
        });
        if let Ok(scored) = verdict {
            prop_assert_eq!(scored.tokens.len(), response.len());
            prop_assert!(!scored.tokens.is_empty() && logits.iter().all(|x| x.is_finite()));
            prop_assert!(scored.tokens.iter().all(|t| (0.0..=1.0).contains(&t.reward)));
            prop_assert!(scored.reward.is_finite());
        } else {
            let good = !response.is_empty()
                && logits.len() == response.len()
                && logits.iter().all(|x| x.is_finite())
                && threshold.is_none_or(|t| (0.0..=1.0).contains(&t))
                && how != Aggregation::LogSum;
            prop_assert!(!good, "a good item failed");
        }
    }
}
