//! What is encoded parses back, and nothing that decodes panics.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use sleuth_core::{
    Aggregation, ByteSpan, CacheUse, ErrorClass, Failure, Options, Reason, ScoreRequest, Scored,
    SentenceReward, SentenceRule, Timing, TokenReward,
};
use sleuth_proto::v1;
use sleuth_wire::{Assembly, Limits, Place, Refusal, encode_item, invalid, item, scores, valid};

fn aggregation() -> impl Strategy<Value = Aggregation> {
    prop::sample::select(Aggregation::ALL.to_vec())
}

prop_compose! {
    fn request()(
        image in prop::collection::vec(any::<u8>(), 1..200),
        prompt in prop::option::of(".{0,40}"),
        response in ".{1,80}",
        adapter in prop::option::of("[a-z]{1,20}"),
        required_version in prop::option::of("[0-9a-f]{64}"),
        aggregation in aggregation(),
        threshold in prop::option::of(0.0_f32..=1.0),
        priority: i32,
        timeout in prop::option::of((0_u64..100_000, 0_u32..1_000_000_000)),
    ) -> ScoreRequest<Bytes> {
        ScoreRequest {
            image: Bytes::from(image),
            prompt,
            response,
            adapter,
            required_version,
            options: Options { aggregation, sentences: SentenceRule::Period, threshold },
            timeout: timeout.map(|(s, n)| Duration::new(s, n)),
            priority,
        }
    }
}

fn span() -> impl Strategy<Value = ByteSpan> {
    (0_u32..10_000, 0_u32..50).prop_filter_map("reversed", |(start, length)| {
        ByteSpan::try_new(start, start + length).ok()
    })
}

prop_compose! {
    fn scored()(
        tokens in prop::collection::vec((span(), -30.0_f32..30.0), 1..60),
        sentences in prop::collection::vec((span(), 0.0_f32..1.0), 1..4),
        flagged in prop::collection::vec(span(), 0..4),
        reward in -50.0_f32..1.0,
        aggregation in aggregation(),
        version in "[0-9a-f]{8}",
        batch_invariant in any::<bool>(),
        micros in 0_u64..1_000_000,
    ) -> Scored {
        Scored {
            tokens: tokens.into_iter().map(|(s, x)| TokenReward::from_logit(s, x)).collect(),
            sentences: sentences
                .into_iter()
                .map(|(span, reward)| SentenceReward { span, reward })
                .collect(),
            flagged,
            reward,
            aggregation,
            version,
            batch_invariant,
            timing: Timing { compute: Duration::from_micros(micros), ..Timing::default() },
            cache: CacheUse { prefix_positions_reused: 7, ..CacheUse::default() },
        }
    }
}

fn key() -> v1::Key {
    v1::Key { item_id: "a".to_owned(), attempt: 1 }
}

proptest! {
    #[test]
    fn a_request_parses_back(request in request()) {
        let wire = encode_item(Some(key()), request.clone()).encode_to_vec();
        let parsed = item(v1::Item::decode(&wire[..]).unwrap(), &Limits::default()).unwrap();
        prop_assert_eq!(parsed.request, request);
    }

    #[test]
    fn scores_come_back_with_the_same_bits(scored in scored(), step in 1_usize..20) {
        let mut assembly = Assembly::default();
        for message in scores(Some(key()), &scored, step) {
            prop_assert!(message.start.len() <= step);
            let wire = message.encode_to_vec();
            assembly.push(&v1::Scores::decode(&wire[..]).unwrap()).unwrap();
        }
        let got = assembly.finish(valid(Some(key()), &scored)).unwrap();
        prop_assert_eq!(got, Ok(scored));
    }

    #[test]
    fn whatever_decodes_is_parsed_or_refused(wire in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = v1::Item::decode(&wire[..]) {
            // Only that it returns: both answers are right for some bytes.
            let _ = item(message, &Limits::default());
        }
    }

    #[test]
    fn a_broken_item_is_refused_by_name(request in request(), which in 0_usize..7) {
        let mut wire = encode_item(Some(key()), request);
        let context = wire.context.get_or_insert_default();
        let expected = match which {
            0 => { wire.response = Bytes::from_static(b"ok \xff"); "response" }
            1 => { wire.response = Bytes::new(); "response" }
            2 => { context.image = None; "context.image" }
            3 => { context.prompt = Some(Bytes::from_static(b"\xc3")); "context.prompt" }
            4 => { context.adapter = "x".repeat(257); "context.adapter" }
            5 => {
                context.timeout = Some(prost_types::Duration { seconds: -1, nanos: 0 });
                "context.timeout"
            }
            _ => {
                context.group = Some(v1::Group::default());
                "context.group.id"
            }
        };
        let failure = item(wire, &Limits::default()).unwrap_err();
        prop_assert_eq!(failure.field, Some(expected));
        prop_assert_eq!(failure.class, ErrorClass::InvalidRequest);
    }
}

fn plain() -> v1::Item {
    let request = ScoreRequest {
        image: Bytes::from_static(b"image"),
        prompt: None,
        response: "A cat.".to_owned(),
        adapter: None,
        required_version: None,
        options: Options::default(),
        timeout: None,
        priority: 0,
    };
    encode_item(Some(key()), request)
}

#[test]
fn what_is_too_large_is_named() {
    let limits = Limits { max_item_bytes: 100, max_response_bytes: 20, ..Limits::default() };
    let mut long = plain();
    long.response = Bytes::from(vec![b'a'; 21]);
    assert_eq!(item(long, &limits).unwrap_err().reason, Reason::RESPONSE_TOO_LARGE);

    let mut heavy = plain();
    let data = v1::image::Source::Data(Bytes::from(vec![0; 101]));
    heavy.context.as_mut().unwrap().image = Some(v1::Image { source: Some(data) });
    assert_eq!(item(heavy, &limits).unwrap_err().reason, Reason::IMAGE_TOO_LARGE);

    let mut wide = plain();
    wide.context.as_mut().unwrap().tracestate = "x".repeat(100);
    assert_eq!(item(wide, &limits).unwrap_err().reason, Reason::ITEM_TOO_LARGE);
    assert_eq!(limits.max_message_bytes(), 200);
}

#[test]
fn an_image_by_digest_is_unknown_and_retryable() {
    let mut wire = plain();
    let digest = v1::image::Source::Blake3(Bytes::from(vec![7; 32]));
    wire.context.as_mut().unwrap().image = Some(v1::Image { source: Some(digest) });
    let failure = item(wire, &Limits::default()).unwrap_err();
    assert_eq!(failure.reason, Reason::IMAGE_UNKNOWN);
    assert!(failure.is_retryable());
}

#[test]
fn policy_tokens_are_refused_and_an_empty_list_is_none() {
    let mut wire = plain();
    wire.policy = Some(v1::PolicyTokens { byte_end: vec![6], piece: Vec::new() });
    assert_eq!(item(wire, &Limits::default()).unwrap_err().class, ErrorClass::Unsupported);
    let mut wire = plain();
    wire.policy = Some(v1::PolicyTokens::default());
    assert!(item(wire, &Limits::default()).is_ok());
}

#[test]
fn an_empty_prompt_is_not_an_absent_one() {
    let mut wire = plain();
    wire.context.as_mut().unwrap().prompt = Some(Bytes::new());
    let parsed = item(wire, &Limits::default()).unwrap();
    assert_eq!(parsed.request.prompt.as_deref(), Some(""));
    assert_eq!(item(plain(), &Limits::default()).unwrap().request.prompt, None);
}

#[test]
fn an_invalid_verdict_reads_back_with_its_field() {
    let failure = Failure::new(ErrorClass::InvalidRequest, Reason::IMAGE_DAMAGED, "ends early")
        .at("image")
        .retry_after(Duration::from_secs(2));
    let verdict = invalid(Some(key()), &failure, Place::Score);
    let refusal = Assembly::default().finish(verdict).unwrap().unwrap_err();
    let expected = Refusal {
        class: ErrorClass::InvalidRequest,
        reason: "image_damaged".to_owned(),
        field: Some("score.context.image".to_owned()),
        detail: "ends early".to_owned(),
        retry_after: Some(Duration::from_secs(2)),
        retryable: false,
    };
    assert_eq!(refusal, expected);
}
