use std::time::{Duration, Instant};

use super::*;
use crate::KeyValue;
use crate::receiver::{Receiver, Span};

const ENOUGH: Duration = Duration::from_secs(10);

fn settings(receiver: &Receiver, sample_ratio: f64) -> TraceSettings {
    TraceSettings {
        sample_ratio,
        attributes: vec![("deployment.environment".to_owned(), "test".to_owned())],
        ..TraceSettings::to(receiver.url())
    }
}

fn valid() -> ItemEnd {
    let attributes = vec![KeyValue::new("sleuth.tokens", 3)];
    ItemEnd { class: "valid", reason: None, attributes }
}

fn failed() -> ItemEnd {
    ItemEnd { class: "deadline", reason: Some("deadline_passed"), attributes: Vec::new() }
}

#[expect(clippy::disallowed_methods, reason = "spans have times of the real clock")]
fn now() -> Instant {
    Instant::now()
}

/// A batch of 10 ms, of which the phases make 9.
fn batch(items: usize) -> Arc<BatchTrace> {
    let millis = Duration::from_millis;
    let phases = vec![
        (Phase::Vision, millis(3)),
        (Phase::Prefill, millis(2)),
        (Phase::Suffix, millis(4)),
        (Phase::Head, Duration::ZERO),
    ];
    Arc::new(BatchTrace::new(now(), millis(10), phases, items, 40))
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn items_and_the_batch_that_served_them_arrive_as_trees_that_link_each_other() {
    let receiver = Receiver::start().await.unwrap();
    let tracer = Tracer::start(&settings(&receiver, 1.0)).unwrap();
    let items = [tracer.item(ItemKind::Whole, None), tracer.item(ItemKind::Whole, None)];
    let batch = batch(items.len());
    for item in items {
        let start = now();
        item.did(Phase::Tokenise, start, start + Duration::from_millis(1));
        item.ran(Duration::from_millis(5), &batch);
        assert_eq!(item.end(false, valid), Some(Decision::Sampled));
        assert_eq!(item.end(false, valid), None, "an item ends once");
    }
    drop(batch);
    assert!(tracer.shutdown(ENOUGH).await);
    let spans = receiver.spans();
    let (items, batches) = (named(&spans, "item"), named(&spans, "batch"));
    assert_eq!((items.len(), batches.len()), (2, 1));
    assert_ne!(items[0].trace_id, items[1].trace_id);
    for item in &items {
        let children: Vec<&Span> = spans.iter().filter(|span| span.is_child_of(item)).collect();
        let names: Vec<&str> = children.iter().map(|span| span.name.as_str()).collect();
        // What took no time at all was not done.
        assert_eq!(names, ["tokenise", "queue", "vision", "prefill", "suffix"]);
        assert!(children.windows(2).skip(1).all(|pair| pair[0].time.1 == pair[1].time.0));
        assert_eq!(children[2].time.1 - children[2].time.0, 3_000_000);
        assert!(item.has_link_to(batches[0]) && batches[0].has_link_to(item));
        assert_eq!((item.parent_id.len(), item.attributes["sleuth.tokens"].as_str()), (0, "3"));
        assert_eq!(item.attributes["sleuth.verdict.class"], "valid");
        assert_eq!(item.resource["service.name"], "sleuth");
        assert_eq!(item.resource["deployment.environment"], "test");
    }
    assert_eq!(batches[0].attributes["sleuth.batch.items"], "2");
    assert_eq!(spans.iter().filter(|span| span.is_child_of(batches[0])).count(), 3);
    assert_eq!(tracer.stats().exported_spans, spans.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_ratio_0_a_failed_item_is_kept_and_a_fast_one_is_not() {
    let receiver = Receiver::start().await.unwrap();
    let tracer = Tracer::start(&settings(&receiver, 0.0)).unwrap();
    let (fast, bad, batch) =
        (tracer.item(ItemKind::Whole, None), tracer.item(ItemKind::Whole, None), batch(2));
    fast.ran(Duration::ZERO, &batch);
    bad.ran(Duration::ZERO, &batch);
    drop(batch);
    assert_eq!(fast.end(false, || panic!("nobody reads it")), Some(Decision::LeftOut));
    assert_eq!(bad.end(true, failed), Some(Decision::Failed));
    drop((fast, bad, tracer.item(ItemKind::Whole, None)));
    assert!(tracer.shutdown(ENOUGH).await);
    let spans = receiver.spans();
    let items = named(&spans, "item");
    assert_eq!(items.len(), 1);
    assert!(items[0].is_error);
    assert_eq!(items[0].attributes["sleuth.verdict.reason"], "deadline_passed");
    assert_eq!(named(&spans, "batch")[0].links.len(), 1, "only what was kept is linked");
    let stats = tracer.stats();
    assert_eq!((stats.failed, stats.left_out, stats.recorded_items), (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_goes_on_in_its_callers_trace() {
    let receiver = Receiver::start().await.unwrap();
    let tracer = Tracer::start(&settings(&receiver, 0.0)).unwrap();
    let parent = |sampled, state: &str| Parent {
        trace_id: [7; 16],
        span_id: [9; 8],
        sampled,
        state: state.to_owned(),
    };
    assert_eq!(
        tracer.item(ItemKind::Whole, Some(parent(false, ""))).end(false, valid),
        Some(Decision::LeftOut)
    );
    let kept = tracer.item(ItemKind::Whole, Some(parent(true, "vendor=opaque")));
    assert_eq!(kept.end(false, valid), Some(Decision::Sampled));
    assert!(
        tracer.item(ItemKind::Whole, Some(parent(true, "no list"))).end(false, valid).is_some()
    );
    assert!(tracer.shutdown(ENOUGH).await);
    let spans = receiver.spans();
    assert_eq!(spans.len(), 2);
    assert!(spans.iter().all(|span| span.trace_id == [7; 16] && span.parent_id == [9; 8]));
    assert_eq!((spans[0].state.as_str(), spans[1].state.as_str()), ("vendor=opaque", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_collector_that_is_gone_is_bounded_and_so_is_the_end() {
    let gone = "http://127.0.0.1:1".to_owned();
    let settings = TraceSettings { sample_ratio: 1.0, max_spans: 4, ..TraceSettings::to(gone) };
    let tracer = Tracer::start(&settings).unwrap();
    for _ in 0..10 {
        let item = tracer.item(ItemKind::Whole, None);
        item.did(Phase::Tokenise, now(), now());
        assert!(item.end(false, valid).is_some());
    }
    assert!(tracer.stats().dropped_spans >= 2 * 6, "{:?}", tracer.stats());
    let started = now();
    assert!(!tracer.shutdown(Duration::from_secs(5)).await);
    assert!(started.elapsed() < Duration::from_secs(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_task_that_works_on_an_item_finds_it() {
    assert!(!current().is_on());
    let receiver = Receiver::start().await.unwrap();
    let tracer = Tracer::start(&settings(&receiver, 1.0)).unwrap();
    assert!(within(tracer.item(ItemKind::Whole, None), async { current().is_on() }).await);
    assert!(!Tracer::default().item(ItemKind::Whole, None).is_on());
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let ratio = TraceSettings { sample_ratio: 1.5, ..TraceSettings::to("http://a:1") };
    assert!(matches!(Tracer::start(&ratio), Err(TraceError::Ratio(_))));
    assert!(matches!(Tracer::start(&TraceSettings::to("a:1")), Err(TraceError::Endpoint)));
}
