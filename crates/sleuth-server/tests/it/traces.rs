use std::time::Duration;

use sleuth_proto::v1;
use sleuth_proto::v1::score_tokens_request::Kind;
use sleuth_server::{Observer, ServerSettings};
use sleuth_telemetry::receiver::{Receiver, Span};
use sleuth_telemetry::traces::{TraceSettings, Tracer};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use crate::harness::{Caller, Harness, item, settings, start};

const OWN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const CALLS: &str = "00-11111111111111111111111111111111-2222222222222222-01";
const UNSAMPLED: &str = "00-33333333333333333333333333333333-4444444444444444-00";

async fn traced(ratio: f64) -> (Harness, Receiver, Tracer) {
    let receiver = Receiver::start().await.unwrap();
    let traces = TraceSettings { sample_ratio: ratio, ..TraceSettings::to(receiver.url()) };
    let tracer = Tracer::start(&traces).unwrap();
    let observer = Observer::new(tracer.clone(), 0);
    let harness = start(ServerSettings { observer, ..settings() }).await;
    (harness, receiver, tracer)
}

/// A stream whose call has a trace of its own.
async fn caller(harness: &Harness, traceparent: &'static str) -> Caller {
    let (requests, queue) = tokio::sync::mpsc::channel(64);
    let mut request = Request::new(ReceiverStream::new(queue));
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    let replies = harness.service().score_tokens(request).await.unwrap().into_inner();
    Caller { requests: Some(requests), replies }
}

async fn sent(tracer: &Tracer, receiver: &Receiver) -> Vec<Span> {
    assert!(tracer.shutdown(Duration::from_secs(10)).await);
    receiver.spans()
}

fn with_trace(id: &str, response: &str, traceparent: &str) -> v1::Item {
    let mut item = item(id, response);
    let context = item.context.as_mut().unwrap();
    traceparent.clone_into(&mut context.traceparent);
    "vendor=opaque".clone_into(&mut context.tracestate);
    item
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_belongs_to_its_own_trace_else_to_its_calls() {
    let (harness, receiver, tracer) = traced(0.0).await;
    let mut caller = caller(&harness, CALLS).await;
    caller.send(Kind::Score(with_trace("own", "a cat", OWN))).await;
    caller.score("calls", "a cat").await;
    caller.send(Kind::Score(with_trace("none", "a cat", "no trace at all"))).await;
    caller.send(Kind::Score(with_trace("unsampled", "a cat", UNSAMPLED))).await;
    assert_eq!(caller.rest().await.len(), 4);
    let spans = sent(&tracer, &receiver).await;
    let mut found: Vec<(String, String, &str)> = spans
        .iter()
        .map(|span| (hex(&span.trace_id), hex(&span.parent_id), span.state.as_str()))
        .collect();
    found.sort();
    let own = (OWN[3..35].to_owned(), OWN[36..52].to_owned(), "vendor=opaque");
    let calls = (CALLS[3..35].to_owned(), CALLS[36..52].to_owned(), "");
    assert_eq!(found, [own, calls.clone(), calls]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_is_sent_whatever_is_sampled_and_says_nothing_of_the_item() {
    let (harness, receiver, tracer) = traced(0.0).await;
    let mut caller = caller(&harness, UNSAMPLED).await;
    caller.score("fine", "a secret cat").await;
    caller.score("refused", "full of secrets").await;
    caller.score("broken", "panic in secret").await;
    // Neither reaches the scorer: a key in use, and an item without an image.
    caller.score("held", "gate").await;
    caller.score("held", "a second secret").await;
    let mut bare = item("bare", "a bare secret");
    bare.context.as_mut().unwrap().image = None;
    caller.send(Kind::Score(bare)).await;
    for _ in 0..5 {
        caller.verdict().await;
    }
    harness.fake.open_gate(1);
    assert_eq!(caller.rest().await.len(), 1);
    let spans = sent(&tracer, &receiver).await;
    let mut reasons: Vec<&str> =
        spans.iter().map(|span| span.attributes["sleuth.verdict.reason"].as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["image_missing", "key_in_use", "queue_full", "worker_failed"]);
    assert!(spans.iter().all(|span| span.is_error && span.name == "item"));
    assert!(!format!("{spans:?}").contains("secret"));
    assert_eq!((tracer.stats().failed, tracer.stats().left_out), (4, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn items_of_a_batch_call_have_spans_of_their_own() {
    let (harness, receiver, tracer) = traced(1.0).await;
    let items = vec![item("a", "a cat"), with_trace("b", "tokens 5", OWN), item("c", "nan")];
    let mut request = Request::new(v1::ScoreBatchRequest { items });
    request.metadata_mut().insert("traceparent", CALLS.parse().unwrap());
    harness.service().score_batch(request).await.unwrap();
    let spans = sent(&tracer, &receiver).await;
    assert_eq!(spans.len(), 3);
    assert_eq!(spans.iter().filter(|span| hex(&span.trace_id) == CALLS[3..35]).count(), 2);
    let own = spans.iter().find(|span| hex(&span.trace_id) == OWN[3..35]).unwrap();
    assert_eq!(own.attributes["sleuth.tokens"], "5");
    assert_eq!(own.attributes["sleuth.model.version"], "v1");
}
