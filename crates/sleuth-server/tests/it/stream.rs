use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use sleuth_proto::v1;
use sleuth_proto::v1::ErrorClass;
use sleuth_proto::v1::score_tokens_request::Kind;
use sleuth_proto::v1::score_tokens_response::Kind as ReplyKind;
use sleuth_wire::{Assembly, encode_item};

use crate::harness::{id, invalid, item, request, settings, start, valid, wire_key};

#[tokio::test]
async fn verdicts_come_as_items_finish() {
    let harness = start(settings()).await;
    let mut caller = harness.caller().await;
    caller.score("slow", "gate").await;
    caller.score("quick", "a cat").await;
    let first = caller.verdict().await;
    assert_eq!(id(&first), "quick");
    assert_eq!(first.version, "v1");
    assert_eq!(valid(first).tokens, 2);
    harness.fake.open_gate(1);
    assert_eq!(id(&caller.verdict().await), "slow");
    assert!(caller.rest().await.is_empty());
}

#[tokio::test]
async fn scores_come_in_parts_and_before_their_verdict() {
    let harness = start(settings()).await;
    let mut caller = harness.caller().await;
    caller.score("a", "tokens 40").await;
    let mut assembly = Assembly::default();
    let mut sizes = Vec::new();
    let verdict = loop {
        match caller.reply().await.unwrap().unwrap() {
            ReplyKind::Scores(scores) => {
                sizes.push(scores.reward.len());
                assembly.push(&scores).unwrap();
            }
            ReplyKind::Verdict(verdict) => break verdict,
            ReplyKind::Notice(_) => panic!("nothing to notice"),
        }
    };
    assert_eq!(sizes, [16, 16, 8]);
    let scored = assembly.finish(verdict).unwrap().unwrap();
    assert_eq!(scored.tokens.len(), 40);
    assert_eq!(scored.tokens[39].logit.to_bits(), (39.0_f32 * 0.37 - 1.0).to_bits());
}

#[tokio::test]
async fn a_key_in_use_is_refused_and_the_first_item_goes_on() {
    let harness = start(settings()).await;
    let mut caller = harness.caller().await;
    caller.score("a", "gate").await;
    caller.score("a", "a cat").await;
    caller.send(Kind::Append(v1::Append { key: Some(wire_key("a")), ..Default::default() })).await;
    for place in ["score.context.key", "append.key"] {
        let refused = caller.verdict().await;
        assert_eq!(id(&refused), "a");
        let refused = invalid(refused);
        assert_eq!((refused.reason.as_str(), refused.field.as_str()), ("key_in_use", place));
    }
    harness.fake.open_gate(1);
    assert_eq!(valid(caller.verdict().await).tokens, 2);
    // The key is free again once its verdict was read.
    caller.score("a", "a dog").await;
    valid(caller.verdict().await);
    assert_eq!(harness.fake.started(), 2);
}

#[tokio::test]
async fn a_cancelled_item_is_dropped_and_says_so() {
    let harness = start(settings()).await;
    let mut caller = harness.caller().await;
    caller.score("a", "gate").await;
    harness.until(|f| f.started() == 1).await;
    caller.send(Kind::Cancel(wire_key("a"))).await;
    let refused = invalid(caller.verdict().await);
    assert_eq!(refused.class, ErrorClass::Cancelled as i32);
    assert!(!refused.retryable);
    assert_eq!(harness.fake.dropped(), 1);
    // Nothing to cancel is nothing wrong.
    caller.send(Kind::Cancel(wire_key("a"))).await;
    caller.send(Kind::Cancel(v1::Key::default())).await;
    assert!(caller.rest().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_item_whose_time_is_over_gets_a_deadline_verdict() {
    let harness = start(settings()).await;
    let mut caller = harness.caller().await;
    let timed = |response: &str, timeout| {
        let mut request = request(response);
        request.context.timeout = Some(timeout);
        Kind::Score(encode_item(Some(wire_key(response)), request))
    };
    caller.send(timed("sleep 900", Duration::from_secs(1))).await;
    caller.send(timed("sleep 1100", Duration::from_secs(1))).await;
    caller.send(timed("sleep 0", Duration::ZERO)).await;
    // Longer than the server allows.
    caller.send(timed("sleep 70000", Duration::from_secs(100))).await;
    let verdicts = caller.rest().await;
    let by_id: BTreeMap<_, _> = verdicts.iter().map(|v| (id(v).to_owned(), v.clone())).collect();
    assert_eq!(by_id.len(), 4);
    valid(by_id["sleep 900"].clone());
    for late in ["sleep 1100", "sleep 0", "sleep 70000"] {
        let refused = invalid(by_id[late].clone());
        assert_eq!(refused.class, ErrorClass::Deadline as i32, "{late}");
    }
    assert_eq!(harness.fake.started(), 3, "no work is begun for an item without time");
    assert_eq!(harness.fake.dropped(), 2);
}

#[tokio::test]
async fn what_is_wrong_with_an_item_ends_no_stream() {
    let harness = start(settings()).await;
    let mut caller = harness.caller().await;
    let broken = |edit: &dyn Fn(&mut v1::Item)| {
        let mut item = item("a", "a cat");
        edit(&mut item);
        Kind::Score(item)
    };
    let digest = |n| v1::Image { source: Some(v1::image::Source::Blake3(vec![1; n].into())) };
    let cases = [
        (
            broken(&|i| i.response = Bytes::from_static(b"a \xff")),
            ("response_not_utf8", "score.response"),
        ),
        (broken(&|i| i.response = Bytes::new()), ("response_empty", "score.response")),
        (
            broken(&|i| i.response = vec![b'a'; 33 << 10].into()),
            ("response_too_large", "score.response"),
        ),
        (
            broken(&|i| i.context.as_mut().unwrap().image = None),
            ("image_missing", "score.context.image"),
        ),
        (
            broken(&|i| i.context.as_mut().unwrap().image = Some(digest(31))),
            ("field_invalid", "score.context.image.blake3"),
        ),
        (
            broken(&|i| i.context.as_mut().unwrap().key = None),
            ("field_missing", "score.context.key.item_id"),
        ),
        (
            broken(&|i| {
                let piece = vec![Bytes::from_static(b"a cat")];
                i.policy = Some(v1::PolicyTokens { byte_end: vec![5], piece });
            }),
            ("field_invalid", "score.policy"),
        ),
        (broken(&|i| i.context = None), ("field_missing", "score.context.key.item_id")),
        (Kind::Close(v1::Key::default()), ("field_missing", "close.item_id")),
    ];
    for (kind, (reason, field)) in cases {
        caller.send(kind).await;
        let refused = invalid(caller.verdict().await);
        assert_eq!((refused.reason.as_str(), refused.field.as_str()), (reason, field));
    }
    let nothing = v1::ScoreTokensRequest { kind: None };
    caller.requests.as_ref().unwrap().send(nothing).await.unwrap();
    assert_eq!(invalid(caller.verdict().await).field, "kind");
    caller.score("a", "a cat").await;
    valid(caller.verdict().await);
    assert!(caller.rest().await.is_empty());
}

#[tokio::test]
async fn a_refused_open_item_gets_one_verdict_whatever_follows() {
    let harness = start(settings()).await;
    let mut caller = harness.caller().await;
    let key = Some(wire_key("a"));
    caller.send(Kind::Open(v1::Context { key: key.clone(), ..Default::default() })).await;
    for offset in 0..3 {
        let text = Bytes::from_static(b"x");
        let append = v1::Append { key: key.clone(), offset, text, policy: None };
        caller.send(Kind::Append(append)).await;
    }
    caller.send(Kind::Close(wire_key("a"))).await;
    caller.send(Kind::Close(wire_key("never opened"))).await;
    let verdicts = caller.rest().await;
    let refused: Vec<_> = verdicts
        .into_iter()
        .map(|verdict| (id(&verdict).to_owned(), invalid(verdict)))
        .map(|(id, refused)| (id, refused.reason, refused.field))
        .collect();
    let expected = [("a", "image_missing", "open.image"), ("never opened", "key_unknown", "close")];
    assert_eq!(refused, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
}

#[tokio::test]
async fn a_failing_scorer_ends_only_its_own_item_and_is_never_a_reward() {
    let harness = start(settings()).await;
    let mut caller = harness.caller().await;
    caller.score("waiting", "gate").await;
    for (response, reason) in
        [("panic", "worker_failed"), ("nan", "reward_not_finite"), ("none", "worker_failed")]
    {
        caller.score(response, response).await;
        let verdict = caller.verdict().await;
        assert_eq!(id(&verdict), response);
        let refused = invalid(verdict);
        assert_eq!(refused.class, ErrorClass::ModelFailure as i32);
        assert_eq!(refused.reason, reason);
    }
    caller.score("full", "full").await;
    let refused = invalid(caller.verdict().await);
    assert_eq!(refused.class, ErrorClass::Overload as i32);
    assert_eq!(refused.retry_after.unwrap().seconds, 3);
    assert!(refused.retryable);
    harness.fake.open_gate(1);
    assert_eq!(id(&caller.verdict().await), "waiting");
}

#[tokio::test]
async fn items_finish_after_the_caller_closed_its_side() {
    let harness = start(settings()).await;
    let mut caller = harness.caller().await;
    for n in 0..5 {
        caller.score(&n.to_string(), "gate").await;
    }
    caller.close();
    harness.until(|f| f.started() == 5).await;
    harness.fake.open_gate(5);
    let mut ids: Vec<_> = caller.rest().await.iter().map(|v| id(v).to_owned()).collect();
    ids.sort();
    assert_eq!(ids, ["0", "1", "2", "3", "4"]);
}
