//! What is encoded parses back, and nothing that decodes panics.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use sleuth_core::{
    Aggregation, ByteSpan, CacheUse, Context, Covered, ErrorClass, Failure, Group, ImageSource,
    Options, PolicyReward, PolicyTokens, Realignment, Reason, ScoreRequest, Scored, SentenceReward,
    SentenceRule, Timing, TokenReward,
};
use sleuth_proto::v1;
use sleuth_wire::{
    Assembly, Limits, Place, Refusal, Rows, append, encode_item, invalid, item, open, scores, valid,
};

fn aggregation() -> impl Strategy<Value = Aggregation> {
    prop::sample::select(Aggregation::ALL.to_vec())
}

prop_compose! {
    fn request()(
        image in image(),
        policy in policy(),
        group in prop::option::of(("[a-z]{1,9}", 0_u32..9, 0_u32..9)),
        idempotency_key in prop::option::of("[a-z0-9]{1,40}"),
        (sentences, realignment) in (
            prop::sample::select(vec![SentenceRule::Period, SentenceRule::Unicode]),
            prop::sample::select(Realignment::ALL.to_vec()),
        ),
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
            context: Context {
                image,
                prompt,
                adapter,
                required_version,
                options: Options { aggregation, sentences, threshold, realignment },
                timeout: timeout.map(|(s, n)| Duration::new(s, n)),
                priority,
                group: group.map(|(id, size, expected)| Group {
                    id,
                    size: (size > 0).then_some(size),
                    expected_response_tokens: (expected > 0).then_some(expected),
                }),
                idempotency_key,
            },
            response,
            policy,
        }
    }
}

fn image() -> impl Strategy<Value = ImageSource<Bytes>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 1..200).prop_map(|v| ImageSource::Data(Bytes::from(v))),
        any::<[u8; 32]>().prop_map(ImageSource::Digest),
    ]
}

fn policy() -> impl Strategy<Value = Option<PolicyTokens>> {
    prop_oneof![
        Just(None),
        prop::collection::vec(any::<u32>(), 1..20).prop_map(|v| Some(PolicyTokens::Ends(v))),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 1..20)
            .prop_map(|v| Some(PolicyTokens::Pieces(v))),
    ]
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
            policy: None,
            duplicates_joined: 3,
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
        let mut assembly = Assembly::new(false);
        for message in scores(Some(&key()), Rows::of(&scored), 0, step) {
            prop_assert!(message.start.len() <= step);
            let wire = message.encode_to_vec();
            assembly.push(&v1::Scores::decode(&wire[..]).unwrap()).unwrap();
        }
        let got = assembly.finish(valid(Some(key()), &scored)).unwrap();
        prop_assert_eq!(got, Ok(scored));
    }

    #[test]
    fn policy_rewards_come_back_with_the_same_bits_however_they_are_resent(
        scored in scored(),
        step in 1_usize..20,
        covered in prop::collection::vec(any::<bool>(), 60),
    ) {
        let policy: Vec<PolicyReward> = scored.tokens.iter().zip(covered).map(|(t, is_covered)| {
            let covered = is_covered.then_some(Covered { reward: t.reward, logit: t.logit });
            PolicyReward { span: t.span, covered, coverage: f32::from(u8::from(is_covered)) }
        }).collect();
        let scored = Scored { policy: Some(policy), ..scored };
        let mut assembly = Assembly::new(true);
        let messages: Vec<_> = scores(Some(&key()), Rows::of(&scored), 0, step).collect();
        for message in &messages {
            assembly.push(message).unwrap();
            assembly.push(message).unwrap();
            assembly.push(&messages[0]).unwrap();
        }
        let got = assembly.finish(valid(Some(key()), &scored)).unwrap();
        prop_assert_eq!(got, Ok(Scored { tokens: Vec::new(), ..scored }));
    }

    #[test]
    fn whatever_decodes_is_parsed_or_refused(wire in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = v1::Item::decode(&wire[..]) {
            // Only that it returns: both answers are right for some bytes.
            let _ = item(message, &Limits::default());
        }
        if let Ok(message) = v1::Context::decode(&wire[..]) {
            let _ = open(message, &Limits::default());
        }
        if let Ok(message) = v1::Append::decode(&wire[..]) {
            let _ = append(message, &Limits::default());
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
    let request = ScoreRequest::new(Bytes::from_static(b"image"), "A cat.");
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
fn a_digest_has_32_bytes() {
    let with = |digest: Vec<u8>| {
        let mut wire = plain();
        let source = Some(v1::image::Source::Blake3(Bytes::from(digest)));
        wire.context.as_mut().unwrap().image = Some(v1::Image { source });
        item(wire, &Limits::default())
    };
    let image = with(vec![7; 32]).unwrap().request.context.image;
    assert_eq!(image, ImageSource::Digest([7; 32]));
    assert_eq!(with(vec![7; 31]).unwrap_err().field, Some("context.image.blake3"));
}

#[test]
fn policy_tokens_are_ends_or_pieces_and_an_empty_list_is_none() {
    let with = |byte_end: Vec<u32>, piece: Vec<Bytes>| {
        let policy = Some(v1::PolicyTokens { byte_end, piece });
        item(v1::Item { policy, ..plain() }, &Limits::default()).map(|i| i.request.policy)
    };
    assert_eq!(with(vec![6], vec![]), Ok(Some(PolicyTokens::Ends(vec![6]))));
    assert_eq!(with(vec![], vec![]), Ok(None));
    assert_eq!(with(vec![6], vec![Bytes::new()]).unwrap_err().field, Some("policy"));
    let many = vec![0; 2 * Limits::default().max_response_bytes + 1];
    assert_eq!(with(many, vec![]).unwrap_err().class, ErrorClass::TooLarge);
}

#[test]
fn an_empty_prompt_is_not_an_absent_one() {
    let mut wire = plain();
    wire.context.as_mut().unwrap().prompt = Some(Bytes::new());
    let parsed = item(wire, &Limits::default()).unwrap();
    assert_eq!(parsed.request.context.prompt.as_deref(), Some(""));
    assert_eq!(item(plain(), &Limits::default()).unwrap().request.context.prompt, None);
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
