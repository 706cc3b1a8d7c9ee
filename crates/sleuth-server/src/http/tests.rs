//! The facades over scorers without a model.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use sleuth_core::{Context, ErrorClass, Failure, ModelCard, Reason, ScoreRequest, Scored};
use sleuth_service::fake::WordScorer;
use sleuth_service::{BoxFuture, Caller, ImageStore, OpenItem, Scorer, Tokenized};
use sleuth_wire::Limits;

use super::{Facades, classify, get_reward, pooling};
use crate::arriving::Room;
use crate::lifecycle::Lifecycle;
use crate::scoring::Scoring;
use crate::{HttpSettings, ServerSettings};

const IMAGE: &str = "data:image/png;base64,AAAA";

/// Scores words, of so many items at once, and notes the keys that came.
struct Narrow {
    words: WordScorer,
    most: usize,
    running: AtomicUsize,
    keys: Mutex<Vec<String>>,
}

/// The facades, and what drains them.
struct Port {
    facades: Facades,
    lifecycle: Lifecycle,
}

// === impl Narrow ===

impl Narrow {
    fn new(most: usize, delay: Duration) -> Arc<Self> {
        let (words, running) = (WordScorer::new(delay), AtomicUsize::new(0));
        Arc::new(Self { words, most, running, keys: Mutex::default() })
    }
}

impl Scorer for Narrow {
    fn score<'a>(
        &'a self,
        caller: &'a Caller,
        request: ScoreRequest<Bytes>,
    ) -> BoxFuture<'a, Result<Scored, Failure>> {
        Box::pin(async move {
            let key = request.context.idempotency_key.clone();
            self.keys.lock().unwrap().extend(key);
            if self.running.load(Ordering::SeqCst) >= self.most {
                let failure = Failure::new(ErrorClass::Overload, Reason::QUEUE_FULL, "full");
                return Err(failure.retry_after(Duration::from_millis(2500)));
            }
            if request.response == "broken" {
                let (class, reason) = (ErrorClass::ModelFailure, Reason::WORKER_FAILED);
                return Err(Failure::new(class, reason, "the model failed"));
            }
            self.running.fetch_add(1, Ordering::SeqCst);
            let scored = self.words.score(caller, request).await;
            self.running.fetch_sub(1, Ordering::SeqCst);
            scored
        })
    }

    fn open<'a>(
        &'a self,
        caller: &'a Caller,
        context: Context<Bytes>,
    ) -> BoxFuture<'a, Result<OpenItem, Failure>> {
        self.words.open(caller, context)
    }

    fn images(&self) -> &Arc<ImageStore> {
        self.words.images()
    }

    fn tokenize(&self, text: String) -> BoxFuture<'_, Result<Tokenized, Failure>> {
        self.words.tokenize(text)
    }

    fn model_of<'a>(&'a self, adapter: &'a str) -> BoxFuture<'a, Result<Arc<ModelCard>, Failure>> {
        self.words.model_of(adapter)
    }
}

// === impl Port ===

impl Port {
    fn loading() -> (Self, super::facades::Key, ServerSettings) {
        let settings =
            ServerSettings { http: Some(HttpSettings::default()), ..ServerSettings::default() };
        let (lifecycle, room) = (Lifecycle::default(), Room::new(1 << 28, 1 << 20));
        let (facades, key) = Facades::new(&settings, None, &lifecycle, room);
        (Self { facades, lifecycle }, key, settings)
    }

    fn over(scorer: Arc<dyn Scorer>) -> Self {
        let (port, key, settings) = Self::loading();
        key.open(&Arc::new(Scoring::new(scorer, &settings, port.lifecycle.clone())));
        port
    }

    async fn send(&self, method: &str, path: &str, body: Body) -> Response<Body> {
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        self.facades.answer(request).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        told(self.send("GET", path, Body::empty()).await).await
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        told(self.send("POST", path, Body::from(body.to_string())).await).await
    }
}

async fn told(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    assert_eq!(response.headers().contains_key(RETRY_AFTER), status == 503);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

fn queries(texts: &[&str]) -> Value {
    json!({"query": texts, "images": vec![IMAGE; texts.len()]})
}

fn chat(response: &str) -> Value {
    json!({"messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": IMAGE}}]},
        {"role": "assistant", "content": response},
    ]})
}

#[tokio::test]
async fn a_bad_sample_is_null_beside_good_ones() {
    let port = Port::over(Narrow::new(64, Duration::ZERO));
    let (status, answer) =
        port.post("/get_reward", &queries(&["A bad ring.", "", "broken", "panic"])).await;
    assert_eq!(status, 200, "{answer}");
    let reward = answer["rewards"][0].as_f64().unwrap();
    assert!(0.0 < reward && reward < 1.0);
    for list in ["rewards", "scores"] {
        assert_eq!(answer[list].as_array().unwrap()[1..], [json!(null), json!(null), json!(null)]);
    }
    assert_eq!(answer["extra_logs"]["sleuth_valid"], json!([1.0, 0.0, 0.0, 0.0]));
    assert_eq!(answer["extra_logs"]["flagged_tokens"], json!([1.0, 0.0, 0.0, 0.0]));
    let reasons: Vec<_> =
        (1..4).map(|n| answer["details"][n]["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["response_empty", "worker_failed", "worker_failed"]);
    assert_eq!(answer["details"][1]["field"], "query[1]");
}

#[tokio::test]
async fn values_per_token_and_per_response_are_those_of_the_scorer() {
    let port = Port::over(Narrow::new(64, Duration::ZERO));
    let (status, answer) = port.post("/v1/pooling", &chat("A bad.")).await;
    assert_eq!(
        (status, &answer["data"][0]["offsets"]),
        (200, &json!([[0, 1], [1, 2], [2, 5], [5, 6]]))
    );
    let mut raw = chat("A bad.");
    raw["use_activation"] = json!(false);
    let (_, answer) = port.post("/pooling", &raw).await;
    assert_eq!(answer["data"][0]["data"], json!([[3.0], [3.0], [-2.0], [3.0]]));
    assert_eq!(answer["usage"]["total_tokens"], 4);
    let (_, odds) = port.post("/classify", &raw).await;
    let (_, reward) = port.post("/classify", &chat("A bad.")).await;
    let p = reward["data"][0]["probs"][0].as_f64().unwrap();
    let odds = odds["data"][0]["probs"][0].as_f64().unwrap();
    assert!((odds - (p / (1.0 - p)).ln()).abs() < 1e-5, "{odds} {p}");
    assert_eq!(
        (&reward["data"][0]["label"], &reward["data"][0]["num_classes"]),
        (&json!(null), &json!(1))
    );
    let (_, models) = port.get("/v1/models").await;
    assert_eq!(
        (&models["data"][0]["id"], &models["data"][0]["version"]),
        (&json!("mini"), &json!("v1"))
    );
}

#[tokio::test]
async fn one_value_per_response_fails_with_its_item() {
    let port = Port::over(Narrow::new(64, Duration::ZERO));
    for (response, status, reason) in [
        ("", 400, "response_empty"),
        ("broken", 500, "worker_failed"),
        ("panic", 500, "worker_failed"),
    ] {
        for path in ["/pooling", "/classify"] {
            let (got, answer) = port.post(path, &chat(response)).await;
            assert_eq!((got, &answer["error"]["reason"]), (status, &json!(reason)), "{path}");
            assert_eq!(answer["error"]["param"], "messages");
        }
    }
    let inputs = json!({"input": ["A ring.", ""], "images": [IMAGE, IMAGE]});
    let (status, answer) = port.post("/classify", &inputs).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("input[1]")));
}

#[tokio::test]
async fn overload_of_any_sample_is_503_of_all_and_nothing_is_429() {
    let port = Port::over(Arc::new(WordScorer::new(Duration::ZERO)));
    let request = Body::from(queries(&["A ring.", "overload", "A star."]).to_string());
    let response = port.send("POST", "/get_reward", request).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()[RETRY_AFTER]),
        (503, &"1".parse().unwrap())
    );
    let full = Port::over(Narrow::new(0, Duration::ZERO));
    for path in ["/pooling", "/classify"] {
        let body = Body::from(chat("A ring.").to_string());
        let response = full.send("POST", path, body).await;
        let after = response.headers()[RETRY_AFTER].clone();
        assert_eq!((response.status().as_u16(), after), (503, "3".parse().unwrap()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_crowds_itself_takes_what_room_there_is() {
    let narrow = Narrow::new(7, Duration::from_millis(10));
    let port = Port::over(Arc::clone(&narrow) as Arc<dyn Scorer>);
    let texts: Vec<String> = (0..500).map(|n| format!("{n} rings.")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (status, answer) = port.post("/get_reward", &queries(&texts)).await;
    assert_eq!(status, 200);
    let rewards = answer["rewards"].as_array().unwrap();
    assert_eq!(rewards.iter().filter(|reward| reward.is_f64()).count(), 500);
    let asked = narrow.keys.lock().unwrap().len();
    assert!(asked < 500 * 3, "{asked} tries");
}

#[tokio::test(start_paused = true)]
async fn an_answer_or_503_comes_before_clients_give_up() {
    let port = Port::over(Narrow::new(64, Duration::from_hours(1)));
    let began = tokio::time::Instant::now();
    for (path, body) in [("/get_reward", queries(&["A ring."])), ("/classify", chat("A ring."))] {
        let (status, answer) = port.post(path, &body).await;
        assert_eq!((status, &answer["error"]["class"]), (503, &json!("deadline")));
    }
    assert!(began.elapsed() < Duration::from_secs(2 * 170));
}

#[tokio::test]
async fn the_same_body_has_the_same_keys() {
    let narrow = Narrow::new(64, Duration::ZERO);
    let port = Port::over(Arc::clone(&narrow) as Arc<dyn Scorer>);
    for _ in 0..3 {
        port.post("/get_reward", &queries(&["A ring.", "A star."])).await;
    }
    let keys = narrow.keys.lock().unwrap().clone();
    assert_eq!((keys.len(), keys.into_iter().collect::<HashSet<_>>().len()), (6, 2));
}

#[tokio::test]
async fn before_the_model_and_while_draining_it_is_503() {
    let (port, key, settings) = Port::loading();
    for path in ["/health", "/v1/models"] {
        assert_eq!(port.get(path).await.0, 503, "{path}");
    }
    let (_, answer) = port.post("/get_reward", &queries(&[])).await;
    assert_eq!(answer["error"]["reason"], "model_loading");
    let scorer = Arc::new(WordScorer::new(Duration::ZERO));
    key.open(&Arc::new(Scoring::new(scorer, &settings, port.lifecycle.clone())));
    assert_eq!(port.get("/health").await.0, 200);
    assert_eq!(port.post("/get_reward", &queries(&[])).await.0, 200);
    port.lifecycle.drain();
    assert_eq!(port.get("/health").await.0, 503);
    let (status, answer) = port.post("/get_reward", &queries(&["A ring."])).await;
    assert_eq!((status, &answer["error"]["class"]), (503, &json!("draining")));
}

#[tokio::test]
async fn what_was_taken_is_cut_off_at_the_end_of_a_drain_as_retryable() {
    let port = Port::over(Arc::new(WordScorer::new(Duration::from_hours(1))));
    let (lifecycle, body) = (port.lifecycle.clone(), queries(&["A ring."]));
    let stop = async {
        while lifecycle.open_calls() == 0 {
            tokio::task::yield_now().await;
        }
        lifecycle.stop();
    };
    let ((status, answer), ()) = tokio::join!(port.post("/get_reward", &body), stop);
    assert_eq!((status, &answer["error"]["retryable"]), (503, &json!(true)));
    assert_eq!(lifecycle.open_calls(), 0);
}

#[tokio::test]
async fn other_paths_and_methods_are_told() {
    let port = Port::over(Arc::new(WordScorer::new(Duration::ZERO)));
    let (status, answer) = port.get("/v1/embeddings").await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!(404)));
    let response = port.send("GET", "/get_reward", Body::empty()).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["allow"]),
        (405, &"POST".parse().unwrap())
    );
    let (status, answer) =
        port.post("/pooling", &json!({"model": "gpt", "messages": chat("A")["messages"]})).await;
    assert_eq!((status, &answer["error"]["param"]), (404, &json!("model")));
    let many = json!({"query": vec![""; 4097]});
    assert_eq!(port.post("/get_reward", &many).await.0, 413);
}

/// JSON that looks like a request's in places.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop_oneof![
            Just(IMAGE),
            Just("user"),
            Just("assistant"),
            Just("text"),
            Just("image_url"),
            Just("token_classify"),
            Just("base64"),
            Just("[{\"role\": \"user\"}]"),
            Just("blake3:"),
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        let name = prop_oneof![
            Just("query"),
            Just("prompts"),
            Just("labels"),
            Just("images"),
            Just("image"),
            Just("messages"),
            Just("role"),
            Just("content"),
            Just("type"),
            Just("text"),
            Just("image_url"),
            Just("url"),
            Just("input"),
            Just("task"),
            Just("model"),
            Just("use_activation"),
            Just("encoding_format"),
            Just("reward_prompts"),
            Just("other"),
        ]
        .prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..7)
                .prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

fn read(body: &[u8]) {
    let limits = Limits::default();
    if let Ok(asked) = get_reward::parse(body, &limits, 16) {
        assert_eq!(asked.samples.len(), asked.spans.len());
    }
    drop(pooling::parse(body, &limits));
    drop(classify::parse(body, &limits, 16));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_json_makes_a_parser_panic(body in any_json()) {
        read(body.to_string().as_bytes());
    }

    #[test]
    fn no_bytes_make_a_parser_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
        read(&body);
    }

    #[test]
    fn no_field_makes_a_parser_panic(
        texts in any_json(),
        prompts in any_json(),
        images in any_json(),
        messages in any_json(),
    ) {
        let body = json!({
            "query": texts, "input": texts, "prompts": prompts, "images": images,
            "labels": messages, "messages": messages, "use_activation": false,
        });
        read(body.to_string().as_bytes());
        let body = json!({"input": texts, "images": images, "prompts": prompts});
        read(body.to_string().as_bytes());
    }
}
