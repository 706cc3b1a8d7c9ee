use std::time::Duration;

use sleuth_core::{ErrorClass, PolicyTokens, Reason};
use sleuth_engine::fake::Act;

use super::bench::{Bench, Verdict, pass, request};
use super::*;
use crate::{Appended, OpenEvent, OpenSettings, Rewards};

const RESPONSE: &str = "a cat. no!";

fn context(key: Option<&str>) -> Context<Bytes> {
    let mut context = request(b"cat", "").context;
    context.idempotency_key = key.map(str::to_owned);
    context
}

async fn with(open: OpenSettings) -> Bench {
    let settings = ServiceSettings { open, ..ServiceSettings::default() };
    Bench::with([], EngineSettings::default(), settings).await
}

async fn open(bench: &Bench, key: Option<&str>) -> OpenItem {
    bench.service.open(&Caller::default(), context(key)).await.unwrap()
}

async fn append(item: &OpenItem, offset: u64, text: &str) {
    append_policy(item, offset, text, None).await;
}

async fn append_policy(item: &OpenItem, offset: u64, text: &str, policy: Option<PolicyTokens>) {
    let text = Bytes::copy_from_slice(text.as_bytes());
    item.append(Appended { offset, text, policy }).await;
}

/// All rewards and the verdict.
async fn rest(item: &mut OpenItem) -> (Vec<Rewards>, Verdict) {
    let mut all = Vec::new();
    loop {
        match item.next().await {
            OpenEvent::Scores { rewards, .. } => all.push(rewards),
            OpenEvent::Verdict(verdict) => return (all, verdict),
        }
    }
}

fn failure(verdict: Verdict) -> (ErrorClass, Reason, Option<&'static str>) {
    let failure = verdict.unwrap_err();
    (failure.class, failure.reason, failure.field)
}

#[tokio::test]
async fn a_response_in_pieces_has_the_rewards_of_the_whole() {
    let bench = Bench::new([]).await;
    let whole = bench.score(request(b"cat", RESPONSE)).await.unwrap();
    for step in 1..=RESPONSE.len() {
        let mut item = open(&bench, None).await;
        for (n, piece) in RESPONSE.as_bytes().chunks(step).enumerate() {
            append(&item, (n * step) as u64, std::str::from_utf8(piece).unwrap()).await;
        }
        item.close().await;
        let (rewards, verdict) = rest(&mut item).await;
        let scored = verdict.unwrap();
        assert_eq!(scored.tokens, whole.tokens);
        assert_eq!(scored.reward.to_bits(), whole.reward.to_bits());
        assert_eq!(scored.sentences, whole.sentences);
        let streamed: Vec<_> = rewards
            .into_iter()
            .flat_map(|rewards| match rewards {
                Rewards::Model(tokens) => tokens,
                Rewards::Policy(_) => panic!("no policy"),
            })
            .collect();
        assert_eq!(streamed, whole.tokens);
    }
    bench.assert_nothing_is_held();
}

#[tokio::test]
async fn settled_tokens_are_scored_when_there_are_enough_or_they_waited_long_enough() {
    let bench = Bench::new([]).await;
    let mut item = open(&bench, None).await;
    append(&item, 0, "abc").await;
    let began = Instant::now();
    let OpenEvent::Scores { first: 0, rewards } = item.next().await else { panic!("scores") };
    assert_eq!(rewards.len(), 2, "the last byte is held back");
    assert!(began.elapsed() >= Duration::from_millis(50));
    append(&item, 3, &"x".repeat(8)).await;
    item.close().await;
    assert_eq!(rest(&mut item).await.1.unwrap().tokens.len(), 11);
    let stats = bench.service.stats();
    assert_eq!((stats.appended_bytes, stats.held_back_bytes), (11, 1));

    let patient = OpenSettings {
        coalesce_tokens: 4,
        coalesce_time: Duration::from_hours(1),
        ..OpenSettings::default()
    };
    let bench = with(patient).await;
    let mut item = open(&bench, None).await;
    append(&item, 0, "abcd").await;
    append(&item, 4, "e").await;
    let OpenEvent::Scores { rewards, .. } = item.next().await else { panic!("scores") };
    assert_eq!(rewards.len(), 4);
    item.close().await;
    assert_eq!(rest(&mut item).await.1.unwrap().tokens.len(), 5, "the end does not wait");
}

#[tokio::test]
async fn resends_are_harmless_and_gaps_and_contradictions_are_not() {
    let bench = Bench::new([]).await;
    let mut item = open(&bench, None).await;
    for (offset, text) in [(0, "a cat"), (0, "a cat"), (2, "cat"), (3, "at. no!"), (5, "")] {
        append(&item, offset, text).await;
    }
    item.close().await;
    append(&item, 0, RESPONSE).await;
    item.close().await;
    let whole = bench.score(request(b"cat", RESPONSE)).await.unwrap();
    assert_eq!(rest(&mut item).await.1.unwrap().tokens, whole.tokens);

    let cases =
        [((3, "x"), Reason::APPEND_GAP, "offset"), ((1, "bad"), Reason::APPEND_CONFLICT, "offset")];
    for ((offset, text), reason, field) in cases {
        let mut item = open(&bench, None).await;
        append(&item, 0, "a ").await;
        append(&item, offset, text).await;
        let verdict = rest(&mut item).await.1;
        assert_eq!(failure(verdict), (ErrorClass::InvalidRequest, reason, Some(field)));
    }
    let mut item = open(&bench, None).await;
    item.close().await;
    let verdict = rest(&mut item).await.1;
    assert_eq!(failure(verdict).1, Reason::RESPONSE_EMPTY);
    bench.assert_nothing_is_held();
}

#[tokio::test]
async fn policy_tokens_come_back_as_they_are_covered() {
    let bench = Bench::new([]).await;
    let mut whole = request(b"cat", RESPONSE);
    whole.policy = Some(PolicyTokens::Ends(vec![2, 5, 7, 10, 10]));
    let whole = bench.score(whole).await.unwrap().policy.unwrap();
    let mut item = open(&bench, None).await;
    let parts = [(0, "a cat", vec![2, 5]), (5, ". ", vec![7]), (7, "no!", vec![10])];
    for (offset, text, ends) in parts.clone() {
        append_policy(&item, offset, text, Some(PolicyTokens::Ends(ends))).await;
    }
    for (offset, text, ends) in parts {
        append_policy(&item, offset, text, Some(PolicyTokens::Ends(ends))).await;
    }
    for _ in 0..2 {
        append_policy(&item, 10, "", Some(PolicyTokens::Ends(vec![10]))).await;
    }
    item.close().await;
    let (rewards, verdict) = rest(&mut item).await;
    let streamed: Vec<_> = rewards
        .into_iter()
        .flat_map(|rewards| match rewards {
            Rewards::Policy(tokens) => tokens,
            Rewards::Model(_) => panic!("policy tokens were given"),
        })
        .collect();
    assert_eq!(streamed, whole);
    assert_eq!(verdict.unwrap().policy.unwrap(), whole);
    assert!(whole[4].covered.is_none());

    let bad = [
        (0, Some(PolicyTokens::Ends(vec![1]))),
        (0, Some(PolicyTokens::Pieces(vec![b"ab".to_vec(), b"x".to_vec()]))),
    ];
    for (offset, policy) in bad {
        let mut item = open(&bench, None).await;
        append_policy(&item, offset, "abc", policy).await;
        let verdict = rest(&mut item).await.1;
        assert_eq!(failure(verdict).1, Reason::POLICY_MISMATCH);
    }
    let mut item = open(&bench, None).await;
    append_policy(&item, 0, "abc", Some(PolicyTokens::Ends(vec![3]))).await;
    append(&item, 3, "def").await;
    assert_eq!(failure(rest(&mut item).await.1).1, Reason::POLICY_MISMATCH);
}

#[tokio::test]
async fn an_idle_item_ends_and_a_deadline_is_kept() {
    let idle = Duration::from_millis(300);
    let bench = with(OpenSettings { idle, ..OpenSettings::default() }).await;
    let mut item = open(&bench, None).await;
    append(&item, 0, "ab").await;
    let began = Instant::now();
    let verdict = rest(&mut item).await.1;
    assert_eq!(failure(verdict).1, Reason::ITEM_IDLE);
    assert!(began.elapsed() >= idle);

    let mut asked = context(None);
    asked.timeout = Some(Duration::from_millis(100));
    let mut item = bench.service.open(&Caller::default(), asked).await.unwrap();
    append(&item, 0, "ab").await;
    let verdict = rest(&mut item).await.1;
    assert_eq!(failure(verdict).1, Reason::DEADLINE_PASSED);
    drop(item);
    bench.until(|b| b.engine.stats().open.items == 0).await;
    bench.assert_nothing_is_held();
}

#[tokio::test]
async fn an_item_that_nobody_holds_ends_at_once_without_a_key_and_later_with_one() {
    let keep = Duration::from_millis(500);
    let bench = with(OpenSettings { keep, ..OpenSettings::default() }).await;
    let at_once = Duration::from_millis(300);
    for (key, cancel, kept) in
        [(None, false, false), (Some("c"), true, false), (Some("k"), false, true)]
    {
        let mut item = open(&bench, key).await;
        append(&item, 0, "abc").await;
        assert!(matches!(item.next().await, OpenEvent::Scores { .. }));
        let began = Instant::now();
        if cancel {
            item.cancel();
        } else {
            drop(item);
        }
        while bench.engine.stats().open.items > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = began.elapsed();
        assert!(if kept { took >= keep } else { took < at_once }, "{key:?}: {took:?}");
        bench.until(|b| b.service.shared.once.under_way() == 0).await;
    }
}

#[tokio::test]
async fn one_holders_cancel_does_not_end_what_another_was_cut_off_from() {
    let keep = Duration::from_millis(500);
    let bench = with(OpenSettings { keep, ..OpenSettings::default() }).await;
    let (first, second) = (open(&bench, Some("k")).await, open(&bench, Some("k")).await);
    append(&second, 0, "abc").await;
    first.cancel();
    let began = Instant::now();
    drop(second);
    bench.until(|b| b.service.shared.once.under_way() == 0).await;
    assert!(began.elapsed() >= keep);
}

#[tokio::test]
async fn a_cut_off_item_goes_on_where_it_was() {
    let bench = Bench::new([]).await;
    let first = open(&bench, Some("k")).await;
    append(&first, 0, "a cat.").await;
    drop(first);
    pass(Duration::from_secs(20)).await;
    let mut second = open(&bench, Some("k")).await;
    append(&second, 0, "a cat. no").await;
    append(&second, 9, "!").await;
    second.close().await;
    let (rewards, verdict) = rest(&mut second).await;
    let scored = verdict.unwrap();
    assert_eq!(rewards.iter().map(Rewards::len).sum::<usize>(), scored.tokens.len());
    let whole = bench.score(request(b"cat", RESPONSE)).await.unwrap();
    assert_eq!(scored.tokens, whole.tokens);

    let computed = bench.engine.stats().tokens;
    let mut third = open(&bench, Some("k")).await;
    append(&third, 0, RESPONSE).await;
    third.close().await;
    assert_eq!(rest(&mut third).await.1.unwrap().tokens, whole.tokens);
    let mut asked = request(b"cat", RESPONSE);
    asked.context.idempotency_key = Some("k".to_owned());
    assert_eq!(bench.score(asked.clone()).await.unwrap().tokens, whole.tokens);
    assert_eq!(bench.engine.stats().tokens, computed, "nothing was computed twice");
    asked.response = "another".to_owned();
    assert_eq!(failure(bench.score(asked).await).1, Reason::IDEMPOTENCY_CONFLICT);
    let mut fourth = open(&bench, Some("k")).await;
    append(&fourth, 0, "another").await;
    fourth.close().await;
    assert_eq!(failure(rest(&mut fourth).await.1).1, Reason::IDEMPOTENCY_CONFLICT);
}

#[tokio::test]
async fn a_whole_response_completes_an_open_item_under_the_same_key() {
    let bench = Bench::new([]).await;
    let mut item = open(&bench, Some("k")).await;
    append(&item, 0, "a cat").await;
    let mut other = request(b"cat", "a dog");
    other.context.idempotency_key = Some("k".to_owned());
    assert_eq!(failure(bench.score(other).await).1, Reason::IDEMPOTENCY_CONFLICT);
    let mut asked = request(b"cat", RESPONSE);
    asked.context.idempotency_key = Some("k".to_owned());
    let scored = bench.score(asked).await.unwrap();
    let whole = bench.score(request(b"cat", RESPONSE)).await.unwrap();
    assert_eq!(scored.tokens, whole.tokens);
    assert_eq!(rest(&mut item).await.1.unwrap().tokens, whole.tokens);
}

#[tokio::test]
async fn failures_of_image_engine_and_tokenizer_end_the_item_alone() {
    let bench = Bench::new([Act::Score, Act::Panic]).await;
    let mut asked = context(None);
    asked.image = ImageSource::Data(Bytes::from_static(b"damaged"));
    let mut item = bench.service.open(&Caller::default(), asked).await.unwrap();
    assert_eq!(failure(rest(&mut item).await.1).1, Reason::IMAGE_DAMAGED);

    let mut item = open(&bench, None).await;
    append(&item, 0, "abc").await;
    item.close().await;
    assert_eq!(failure(rest(&mut item).await.1).1, Reason::WORKER_FAILED);

    let mut item = open(&bench, None).await;
    append(&item, 0, "panic").await;
    assert_eq!(failure(rest(&mut item).await.1).1, Reason::WORKER_FAILED);
    assert!(bench.score(request(b"cat", "fine")).await.is_ok());
    bench.assert_nothing_is_held();
}

#[tokio::test]
async fn a_response_that_grows_too_long_is_refused() {
    let bench = Bench::new([]).await;
    let mut item = open(&bench, None).await;
    append(&item, 0, &"x".repeat(18)).await;
    assert_eq!(failure(rest(&mut item).await.1).1, Reason::RESPONSE_TOO_LARGE);
}
