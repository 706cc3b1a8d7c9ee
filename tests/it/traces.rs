//! Traces of a real server, as a collector gets them.

use bytes::Bytes;
use sleuth_client::Client;
use sleuth_core::{PolicyTokens, ScoreRequest};
use sleuth_telemetry::receiver::{Receiver, Span};

use crate::command::picture;
use crate::server::Server;

const RESPONSE: &str = "A small red star is left of a blue ring.";
const PROMPT: &str = "What does the drawing show?";

fn request(response: &str) -> ScoreRequest<Bytes> {
    let image = Bytes::from(std::fs::read(picture()).unwrap());
    let mut request = ScoreRequest::new(image, response);
    request.context.prompt = Some(PROMPT.to_owned());
    request.context.idempotency_key = Some(format!("key of {response}"));
    request.policy = Some(PolicyTokens::Ends((1..=response.len() as u32).collect()));
    request
}

fn children<'a>(spans: &'a [Span], parent: &Span) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.is_child_of(parent)).collect()
}

fn names<'a>(spans: &[&'a Span]) -> Vec<&'a str> {
    let mut names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    names
}

// More than one thread: waiting for the server to end must not hold up the receiver.
#[tokio::test(flavor = "multi_thread")]
async fn an_items_tree_and_its_batchs_tell_all_phases_and_no_text() {
    let receiver = Receiver::start().await.unwrap();
    let (url, attribute) = (receiver.url(), "--otlp-attributes=deployment.environment=test");
    let arguments = ["--otlp-endpoint", &url, "--trace-sample", "1", attribute];
    let mut server = Server::start(None, &arguments);
    let client = Client::connect(server.url()).await.unwrap();
    let scored = client.score(request(RESPONSE)).await.unwrap();
    assert!(client.score(request("")).await.is_err());
    assert!(server.terminate().success());
    let spans = receiver.spans();
    let of = |class: &str| {
        let is = |s: &&Span| s.attributes.get("sleuth.verdict.class").is_some_and(|c| c == class);
        spans.iter().filter(is).collect::<Vec<_>>()
    };
    let [item] = of("valid")[..] else { panic!("one valid item: {spans:?}") };
    let phases = ["decode", "head", "prefill", "queue", "realign", "suffix", "tokenise", "vision"];
    let own = children(&spans, item);
    assert_eq!(names(&own), phases);
    // Wall clocks of item and batch are read at different moments.
    let slack = 50_000_000;
    let within = |s: &&Span| s.time.0 + slack >= item.time.0 && s.time.1 <= item.time.1 + slack;
    assert!(own.iter().all(within), "{item:?} {own:?}");
    assert_eq!(item.parent_id, [0_u8; 0]);
    assert!(item.attributes["sleuth.tokens"].parse::<usize>().unwrap() > 8);
    assert_eq!(item.attributes["sleuth.model.version"], scored.version);
    assert_eq!(item.attributes["sleuth.prefix.reused"], "0");
    assert_eq!(item.resource["service.name"], "sleuth");
    assert_eq!(item.resource["deployment.environment"], "test");

    let batches: Vec<&Span> = spans.iter().filter(|span| span.name == "batch").collect();
    let [batch] = batches[..] else { panic!("one batch: {spans:?}") };
    assert!(item.has_link_to(batch) && batch.has_link_to(item));
    assert_ne!(batch.trace_id, item.trace_id);
    let phases = children(&spans, batch);
    assert_eq!(names(&phases), ["head", "prefill", "suffix", "vision"]);
    assert!(phases.iter().all(|p| p.time.0 >= batch.time.0 && p.time.1 <= batch.time.1));
    assert_eq!(batch.attributes["sleuth.batch.items"], "1");

    let [failed] = of("invalid_request")[..] else { panic!("one failed item: {spans:?}") };
    assert!(failed.is_error);
    assert_eq!(failed.attributes["sleuth.verdict.reason"], "response_empty");
    let all = format!("{spans:?}");
    for text in ["red star", "drawing", "key of"] {
        assert!(!all.contains(text), "{text} is in a span");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_is_one_trace_from_the_router_to_the_replica() {
    let receiver = Receiver::start().await.unwrap();
    let url = receiver.url();
    let arguments = ["--otlp-endpoint", &url, "--trace-sample", "1"];
    let mut server = Server::start(None, &arguments);
    let mut router = Server::route(None, &[server.address], &arguments);
    let client = Client::connect(router.url()).await.unwrap();
    client.score(request(RESPONSE)).await.unwrap();
    assert!(router.terminate().success());
    assert!(server.terminate().success());
    let spans = receiver.spans();
    let items: Vec<&Span> = spans.iter().filter(|span| span.name == "item").collect();
    let routed = |span: &&&Span| span.attributes.contains_key("sleuth.router.placement");
    let outer = items.iter().find(routed).expect("the router's");
    let inner: Vec<_> = items.iter().filter(|span| span.is_child_of(outer)).collect();
    assert_eq!((items.len(), inner.len()), (2, 1), "{items:?}");
    assert_eq!(outer.attributes["sleuth.router.placement"], "rendezvous");
    assert_eq!(outer.attributes["sleuth.router.replica"], server.address.to_string());
    assert_eq!(outer.trace_id, inner[0].trace_id);
    assert!(names(&children(&spans, inner[0])).contains(&"suffix"));
}
