use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use sleuth_core::{Context, Failure, ImageSource, PolicyTokens, Scored};
use sleuth_proto::v1;
use sleuth_wire::{
    Assembly, Limits, Place, Refusal, Rows, append, digest, encode_context, encode_item,
    encode_policy, encoded, invalid, item, key, load_report, load_response, model_card,
    model_response, open, scores, status, tokenize_response, valid,
};

/// Small, so that small inputs reach them.
const LIMITS: Limits = Limits {
    max_item_bytes: 1024,
    max_prompt_bytes: 64,
    max_response_bytes: 128,
    max_batch_items: 4,
    max_timeout: Duration::from_mins(1),
};
/// What is encoded again may be larger: it says what was left to the default.
const WIDER: Limits = Limits { max_item_bytes: 4096, ..LIMITS };
/// Longest id, adapter, version or idempotency key.
const MAX_NAME_BYTES: usize = 256;

/// Any bytes as a message of a caller and of a server: what parses is within the limits and comes
/// back as it was; what a client puts together has as many tokens as the verdict says and no number
/// that is not finite.
pub fn wire(bytes: &[u8]) {
    decoded(bytes, whole);
    decoded(bytes, context);
    decoded(bytes, appended);
    decoded(bytes, |key: v1::Key| named(&key));
    decoded(bytes, image);
    decoded(bytes, model);
    decoded(bytes, tokens);
    decoded(bytes, load);
    decoded(bytes, |scores: v1::Scores| {
        for of_policy in [false, true] {
            assembled(of_policy, [&scores, &scores], None);
        }
    });
    decoded(bytes, |verdict: v1::Verdict| assembled(false, [], Some(verdict)));
    decoded(bytes, |response: v1::ScoreBatchResponse| {
        let rows = || response.results.iter().filter_map(|r| r.scores.as_ref());
        let verdict = || response.results.iter().rev().find_map(|r| r.verdict.clone());
        assembled(false, rows(), verdict());
        assembled(true, rows(), verdict());
    });
}

fn decoded<M: prost::Message + Default>(bytes: &[u8], check: impl FnOnce(M)) {
    if let Ok(message) = M::decode(bytes) {
        check(message);
    }
}

fn whole(wire: v1::Item) {
    let size = wire.encoded_len();
    let (scored, message) = (wire.policy.is_some(), wire.clone());
    match item(wire, &LIMITS) {
        Err(failure) => refused(&failure, Place::Score),
        Ok(parsed) => {
            assert!(size <= LIMITS.max_item_bytes);
            let request = parsed.request;
            within(&request.context);
            assert!((1..=LIMITS.max_response_bytes).contains(&request.response.len()));
            assert_eq!(request.response.as_bytes(), message.response);
            assert!(scored || request.policy.is_none());
            request.policy.iter().for_each(listed);
            let key = message.context.and_then(|c| c.key);
            let again = encode_item(key, request.clone());
            let back = v1::Item::decode(Bytes::from(again.encode_to_vec())).expect("an item");
            assert_eq!(back, again);
            assert_eq!(item(back, &WIDER).map(|i| i.request), Ok(request));
        }
    }
}

fn context(wire: v1::Context) {
    let size = wire.encoded_len();
    let key = wire.key.clone();
    match open(wire, &LIMITS) {
        Err(failure) => refused(&failure, Place::Open),
        Ok(parsed) => {
            assert!(size <= LIMITS.max_item_bytes);
            within(&parsed.context);
            if let Some(trace) = &parsed.trace {
                assert!(trace.trace_id != [0; 16] && trace.parent_id != [0; 8]);
                assert!(trace.state.len() <= 512);
            }
            let again = encode_context(key, parsed.context.clone());
            let back = v1::Context::decode(Bytes::from(again.encode_to_vec())).expect("a context");
            assert_eq!(back, again);
            assert_eq!(open(back, &WIDER).map(|o| o.context), Ok(parsed.context));
        }
    }
}

fn appended(wire: v1::Append) {
    let message = wire.clone();
    match append(wire, &LIMITS) {
        Err(failure) => refused(&failure, Place::Append),
        Ok(parsed) => {
            assert_eq!((parsed.offset, &parsed.text), (message.offset, &message.text));
            assert!(parsed.text.len() <= LIMITS.max_response_bytes);
            parsed.policy.iter().for_each(listed);
            let policy = parsed.policy.clone().map(encode_policy);
            let again = append(v1::Append { policy, ..message }, &LIMITS);
            assert_eq!(again, Ok(parsed));
        }
    }
}

fn named(wire: &v1::Key) {
    match key(Some(wire)) {
        Err(failure) => refused(&failure, Place::Close),
        Ok(parsed) => {
            assert!((1..=MAX_NAME_BYTES).contains(&parsed.item_id.len()));
            assert!(parsed.to_string().starts_with(&parsed.item_id));
            assert_eq!(v1::Key::from(parsed), *wire);
        }
    }
}

fn image(wire: v1::PutImageRequest) {
    let Some(v1::put_image_request::Kind::Header(header)) = wire.kind else { return };
    match digest(&header.blake3, "blake3") {
        Err(failure) => refused(&failure, Place::Header),
        Ok(digest) => assert_eq!(digest, *header.blake3),
    }
}

fn model(wire: v1::GetModelResponse) {
    let card = model_card(wire);
    let again = model_card(model_response(&card, &LIMITS, 1));
    // The threshold may be NaN here: bits, not numbers.
    assert_eq!(again.threshold.to_bits(), card.threshold.to_bits());
    assert_eq!((again.name, again.version), (card.name, card.version));
}

fn tokens(wire: v1::TokenizeResponse) {
    let (message, version) = (wire.clone(), wire.version.clone());
    if let Ok(encoded) = encoded(wire) {
        assert_eq!(encoded.ids.len(), encoded.spans.len());
        assert!(encoded.spans.iter().all(|span| span.start() <= span.end()));
        assert_eq!(tokenize_response(encoded, version), message);
    }
}

/// What a router makes of a replica's report.
fn load(wire: v1::WatchLoadResponse) {
    let Ok(report) = load_report(wire) else { return };
    assert!(report.load.prefix_seconds >= 0.0 && report.load.response_token_seconds >= 0.0);
    let again = load_report(load_response(report.clone())).expect("what was read can be sent");
    assert_eq!(again, report);
}

/// What a client makes of scores and a verdict, and of the same encoded again.
fn assembled<'a>(
    of_policy: bool,
    rows: impl IntoIterator<Item = &'a v1::Scores>,
    verdict: Option<v1::Verdict>,
) {
    let mut assembly = Assembly::new(of_policy);
    for scores in rows {
        let before = assembly.len();
        let pushed = assembly.push(scores);
        assert!(assembly.len() >= before);
        finite(&assembly);
        if pushed.is_err() {
            return;
        }
        let end = scores.first_token as usize + scores.start.len();
        assert_eq!(assembly.len(), before.max(end));
    }
    let Some(verdict) = verdict else { return };
    let (found, message) = (assembly.len(), verdict.clone());
    match assembly.finish(verdict) {
        Err(_) => {}
        Ok(Err(refusal)) => {
            assert!(matches!(message.outcome, Some(v1::verdict::Outcome::Invalid(_))));
            assert!(!refusal.to_string().is_empty());
        }
        Ok(Ok(scored)) => {
            assert!(matches!(
                &message.outcome,
                Some(v1::verdict::Outcome::Valid(valid)) if valid.tokens as usize == found
            ));
            assert_eq!(Rows::of(&scored).len(), found);
            assert!(scored.reward.is_finite());
            assert!(scored.sentences.iter().all(|s| s.reward.is_finite()));
            again(of_policy, &scored);
        }
    }
}

fn again(of_policy: bool, scored: &Scored) {
    let mut assembly = Assembly::new(of_policy);
    for rows in scores(None, Rows::of(scored), 0, 3) {
        assert_eq!(assembly.push(&rows), Ok(()));
    }
    assert_eq!(assembly.finish(valid(None, scored)), Ok(Ok(scored.clone())));
}

fn finite(assembly: &Assembly) {
    let (tokens, policy) = assembly.since(0);
    assert!(tokens.is_empty() || policy.is_empty());
    assert!(tokens.iter().all(|t| t.reward.is_finite() && t.logit.is_finite()));
    for token in policy {
        assert!((0.0..=1.0).contains(&token.coverage));
        assert_eq!(token.covered.is_some(), token.coverage > 0.0);
        assert!(token.covered.is_none_or(|c| c.reward.is_finite() && c.logit.is_finite()));
    }
}

fn within(context: &Context<Bytes>) {
    match &context.image {
        ImageSource::Data(data) => {
            assert!((1..=LIMITS.max_item_bytes).contains(&data.len()));
        }
        ImageSource::Digest(_) => {}
    }
    assert!(context.prompt.as_ref().is_none_or(|p| p.len() <= LIMITS.max_prompt_bytes));
    let group = context.group.as_ref().map(|g| &g.id);
    let names = [&context.adapter, &context.required_version, &context.idempotency_key];
    for name in names.into_iter().flatten().chain(group) {
        assert!((1..=MAX_NAME_BYTES).contains(&name.len()));
    }
    let threshold = context.options.threshold;
    assert!(threshold.is_none_or(|t| (0.0..=1.0).contains(&t)));
}

fn listed(policy: &PolicyTokens) {
    assert!(!policy.is_empty() && policy.len() <= 2 * LIMITS.max_response_bytes);
}

/// A refusal reaches the caller as it is, in a verdict and in a status.
fn refused(failure: &Failure, place: Place) {
    let field = failure.field.map(|f| place.path(f));
    let verdict = invalid(None, failure, place);
    let refusal = Assembly::new(false).finish(verdict).expect("a verdict").expect_err("a refusal");
    for refusal in [refusal, Refusal::from(&status(failure, place))] {
        assert_eq!((refusal.class, &refusal.field), (failure.class, &field));
        assert_eq!(refusal.reason, failure.reason.name());
        assert_eq!(refusal.retryable, failure.is_retryable());
    }
}
