use sleuth_core::{ErrorClass, Reason};
use sleuth_engine::EngineSettings;

use super::bench::{Bench, request};
use super::*;
use crate::Put;

fn named(data: &[u8], response: &str) -> ScoreRequest<Bytes> {
    let mut request = request(b"", response);
    request.context.image = ImageSource::Digest(*blake3::hash(data).as_bytes());
    request
}

fn put(bench: &Bench, caller: &Caller, data: &[u8]) {
    let digest = *blake3::hash(data).as_bytes();
    let put = bench.service.images().put(caller, digest, data.len() as u64).unwrap();
    let Put::Wanted(mut upload) = put else { panic!("it is here") };
    upload.write(data).unwrap();
    upload.finish().unwrap();
}

#[tokio::test]
async fn an_image_is_named_by_digest_once_it_was_put() {
    let bench = Bench::new([]).await;
    let failure = bench.score(named(b"cat", "x")).await.unwrap_err();
    assert_eq!((failure.class, failure.reason), (ErrorClass::Unknown, Reason::IMAGE_UNKNOWN));
    assert!(failure.is_retryable());
    put(&bench, &Caller::default(), b"cat");
    let by_digest = bench.score(named(b"cat", "x")).await.unwrap();
    let by_data = bench.score(request(b"cat", "x")).await.unwrap();
    assert_eq!(by_digest.tokens, by_data.tokens);
    assert_eq!(bench.prepare.decoded(), 1, "pixels are kept");
    bench.assert_nothing_is_held();
}

#[tokio::test]
async fn pixels_that_are_kept_are_not_anothers_image() {
    let bench = Bench::new([]).await;
    put(&bench, &Caller::default(), b"cat");
    bench.score(named(b"cat", "x")).await.unwrap();
    let other = Caller::new("other");
    let failure = bench.service.score(&other, named(b"cat", "x")).await.unwrap_err();
    assert_eq!(failure.reason, Reason::IMAGE_UNKNOWN);
    bench.service.score(&other, request(b"cat", "x")).await.unwrap();
    assert_eq!(bench.prepare.decoded(), 1, "who has the file may use the pixels");
}

#[tokio::test]
async fn a_key_does_not_mind_how_its_image_came() {
    let bench = Bench::new([]).await;
    let keyed = |mut request: ScoreRequest<Bytes>| {
        request.context.idempotency_key = Some("k".to_owned());
        request
    };
    bench.score(keyed(request(b"cat", "x"))).await.unwrap();
    assert!(bench.score(keyed(named(b"cat", "x"))).await.is_ok(), "it is stored");
    let failure = bench.score(keyed(named(b"dog", "x"))).await.unwrap_err();
    assert_eq!(failure.reason, Reason::IDEMPOTENCY_CONFLICT);
}

#[tokio::test]
async fn decoding_that_takes_too_long_fails_its_items_alone() {
    let max_decode_time = Duration::from_millis(50);
    let settings = ServiceSettings { max_decode_time, ..ServiceSettings::default() };
    let bench = Bench::with([], EngineSettings::default(), settings).await;
    let go = bench.prepare.hold_decoding();
    let failure = bench.score(request(b"cat", "x")).await.unwrap_err();
    assert_eq!((failure.class, failure.reason), (ErrorClass::Deadline, Reason::IMAGE_SLOW));
    assert!(bench.score(request(b"dog", "x")).await.is_ok());
    go.send(()).unwrap();
    assert!(bench.score(request(b"cat", "x")).await.is_ok());
    bench.assert_nothing_is_held();
}
