//! The HTTP facades of the real binary, alone and at a router: what trainers' clients get.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use sleuth_client::Client;
use sleuth_core::{ImageSource, ScoreRequest};

use crate::certificates::{Authority, Files};
use crate::command::{path, picture, run, stderr};
use crate::faults::DEVICE;
use crate::server::Server;

const PROMPT: &str = "Describe the image.";
const TEXT: &str = "The blue triangle is on the left. The large heart is red.";
const HTTP: [&str; 2] = ["--http-listen", "127.0.0.1:0"];

/// Of base64.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What came back.
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
}

/// One request on a connection of its own.
fn send(address: SocketAddr, head: &str, more: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut request = Vec::new();
    write!(request, "{head} HTTP/1.1\r\nhost: sleuth\r\nconnection: close\r\n").unwrap();
    for (name, value) in more {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    write!(request, "content-length: {}\r\n\r\n", body.len()).unwrap();
    stream.write_all(&request).unwrap();
    // A server may answer before it has read all.
    let _ = stream.write_all(body);
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Answer { status, headers, body: serde_json::from_str(body).unwrap_or_default() }
}

fn post(server: &Server, route: &str, body: &Value) -> Answer {
    send(server.http.unwrap(), &format!("POST {route}"), &[], body.to_string().as_bytes())
}

fn get(server: &Server, route: &str) -> Answer {
    send(server.http.unwrap(), &format!("GET {route}"), &[], b"")
}

fn image() -> String {
    let bytes = std::fs::read(picture()).unwrap();
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(DIGITS[(bits >> (18 - 6 * place)) as usize & 63] as char);
        }
    }
    text
}

fn samples(queries: &[&str]) -> Value {
    json!({
        "query": queries,
        "prompts": vec![PROMPT; queries.len()],
        "labels": vec![Value::Null; queries.len()],
        "images": vec![image(); queries.len()],
    })
}

fn chat(response: &str) -> Value {
    let url = format!("data:image/png;base64,{}", image());
    json!({"messages": [
        {"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": PROMPT},
        ]},
        {"role": "assistant", "content": response},
    ]})
}

fn request(response: &str) -> ScoreRequest<bytes::Bytes> {
    let mut request = ScoreRequest::new(std::fs::read(picture()).unwrap().into(), response);
    request.context.prompt = Some(PROMPT.to_owned());
    request
}

fn close(a: &Value, b: f32) -> bool {
    (a.as_f64().unwrap() - f64::from(b)).abs() < 1e-6 * (1.0 + f64::from(b).abs())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_gives_what_grpc_gives_and_a_router_what_its_replicas_give() {
    let replica = Server::start(None, &HTTP);
    let router = Server::route(None, &[replica.address], &HTTP);
    let client = Client::connect(replica.url()).await.unwrap();
    let scored = client.score(request(TEXT)).await.unwrap();
    let digest = client.put_image(std::fs::read(picture()).unwrap().into()).await.unwrap();
    for server in [&replica, &router] {
        assert_eq!(get(server, "/health").status, 200);
        let models = get(server, "/v1/models");
        assert_eq!(models.body["data"][0]["version"], scored.version.as_str());

        let query = format!("{PROMPT}{TEXT}");
        let answer = post(server, "/get_reward", &samples(&[&query, "other", &query]));
        assert_eq!(answer.status, 200, "{}", answer.body);
        for n in [0, 2] {
            assert!(close(&answer.body["rewards"][n], scored.reward), "{}", answer.body);
            let tokens = answer.body["details"][n]["tokens"].as_array().unwrap();
            assert_eq!(tokens.len(), scored.tokens.len());
            for (got, token) in tokens.iter().zip(&scored.tokens) {
                assert_eq!(got["start"], token.span.start());
                assert!(close(&got["logit"], token.logit) && close(&got["reward"], token.reward));
            }
        }
        assert_eq!(answer.body["rewards"][1], Value::Null);
        assert_eq!(answer.body["extra_logs"]["sleuth_valid"], json!([1.0, 0.0, 1.0]));
        let flagged = scored.tokens.iter().filter(|token| token.reward <= 0.5).count() as f64;
        assert_eq!(answer.body["extra_logs"]["flagged_tokens"][0], flagged);

        let answer = post(server, "/v1/pooling", &chat(TEXT));
        let rows = answer.body["data"][0]["data"].as_array().unwrap();
        assert_eq!(rows.len(), scored.tokens.len());
        let right = rows.iter().zip(&scored.tokens).all(|(row, t)| close(&row[0], t.reward));
        assert!(right, "{}", answer.body);

        let answer = post(server, "/classify", &chat(TEXT));
        assert!(close(&answer.body["data"][0]["probs"][0], scored.reward), "{}", answer.body);
        // As veRL's client sends what a chat template wrote.
        let written = chat(TEXT)["messages"].to_string();
        let of_verl = json!({"model": "/models/mini", "input": written, "use_activation": false});
        let answer = post(server, "/classify", &of_verl);
        let odds = answer.body["data"][0]["probs"][0].as_f64().unwrap();
        let p = f64::from(scored.reward);
        assert!((odds - (p / (1.0 - p)).ln()).abs() < 1e-4, "{odds}");
    }
    // An image that was put, named as OpenRLHF's client can: in the label.
    let hex = blake3::Hash::from_bytes(digest).to_hex();
    let named = json!({
        "query": [format!("{PROMPT}{TEXT}")], "prompts": [PROMPT],
        "labels": [{"image": format!("blake3:{hex}")}],
    });
    let answer = post(&replica, "/get_reward", &named);
    assert!(close(&answer.body["rewards"][0], scored.reward), "{}", answer.body);
    let mut by_digest = request(TEXT);
    by_digest.context.image = ImageSource::Digest(digest);
    assert_eq!(client.score(by_digest).await.unwrap().reward.to_bits(), scored.reward.to_bits());
}

#[test]
fn bad_requests_name_their_field_and_a_bad_sample_is_never_a_number() {
    let server = Server::start(None, &[&HTTP[..], &["--http-max-body-size", "1"]].concat());
    let mut unknown = samples(&[&format!("{PROMPT}{TEXT}")]);
    unknown["images"] = json!([format!("blake3:{}", "0".repeat(64))]);
    let mut linked = chat(TEXT);
    linked["messages"][0]["content"][0]["image_url"]["url"] = json!("https://host/a.png");
    for (route, body, status, param) in [
        ("/get_reward", json!({"query": 3}), 400, "query"),
        ("/get_reward", json!({"query": ["a"], "prompts": [[]]}), 400, "prompts[0]"),
        ("/get_reward", json!({"query": ["a", "b"], "labels": [1]}), 400, "labels"),
        ("/pooling", json!({"input": "text", "task": "token_classify"}), 400, "input"),
        ("/pooling", json!({"messages": "text"}), 400, "messages"),
        ("/pooling", linked, 400, "messages[0].content[0].image_url.url"),
        ("/pooling", chat(""), 400, "messages"),
        ("/classify", json!({"input": "text"}), 400, "input"),
        ("/classify", json!({"input": [1, 2]}), 400, "input[0]"),
        ("/classify", json!({"model": "gpt", "messages": chat(TEXT)["messages"]}), 404, "model"),
        ("/get_reward", json!(["a"]), 400, "body"),
        ("/get_reward", json!({"query": vec!["a"; 4097]}), 413, "query"),
    ] {
        let answer = post(&server, route, &body);
        let error = &answer.body["error"];
        assert_eq!((answer.status, &error["param"]), (status, &json!(param)), "{error}");
        assert_eq!(error["code"], answer.status);
        assert!(error["message"].as_str().unwrap().len() > 10);
    }
    let answer = post(&server, "/get_reward", &unknown);
    assert_eq!((answer.status, &answer.body["rewards"]), (200, &json!([null])));
    let detail = &answer.body["details"][0];
    assert_eq!((&detail["reason"], &detail["retryable"]), (&json!("image_unknown"), &json!(true)));
    let large = json!({"query": ["a".repeat(2 << 20)]});
    let answer = post(&server, "/get_reward", &large);
    assert_eq!(answer.status, 413, "{}", answer.body);
    assert_eq!(answer.headers["connection"], "close");
    let broken = send(server.http.unwrap(), "POST /classify", &[], b"{\"input\": ");
    assert_eq!((broken.status, &broken.body["error"]["param"]), (400, &json!("body")));
    let packed =
        send(server.http.unwrap(), "POST /classify", &[("content-encoding", "gzip")], b"x");
    assert_eq!(packed.status, 415);
    assert_eq!(get(&server, "/classify").status, 405);
    assert_eq!(get(&server, "/v1/chat/completions").status, 404);
    let long = "x".repeat(64 << 10);
    assert_eq!(send(server.http.unwrap(), "GET /health", &[("x-long", &long)], b"").status, 431);
    let log = server.log();
    assert!(!log.contains("triangle") && !log.contains("panicked"), "{log}");
}

#[test]
fn three_thousand_samples_are_one_request_and_are_found_again() {
    let more = ["--simulated-device", "1000000,0.001", "--http-max-body-size", "256"];
    let mut server = Server::start(None, &[&HTTP[..], &more].concat());
    let empty = json!({"query": [], "prompts": [], "labels": []});
    let answer = post(&server, "/get_reward", &empty);
    assert_eq!((answer.status, &answer.body["rewards"]), (200, &json!([])));
    let queries: Vec<String> = (0..3000).map(|n| format!("{PROMPT}There are {n} rings.")).collect();
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let body = samples(&queries);
    let first = post(&server, "/get_reward", &body);
    assert_eq!(first.status, 200, "{}", first.body);
    let rewards = first.body["rewards"].as_array().unwrap();
    assert_eq!((rewards.len(), rewards.iter().filter(|r| r.is_number()).count()), (3000, 3000));
    let again = post(&server, "/get_reward", &body);
    assert_eq!(again.body["rewards"], first.body["rewards"]);
    let (_, metrics) = server.page("/metrics");
    let line = |start: &str| metrics.lines().any(|line| line.starts_with(start));
    assert!(line("sleuth_idempotency_total{result=\"replayed\"} 3000"), "{metrics}");
    assert!(line("sleuth_http_requests_total{route=\"get_reward\",status=\"200\"} 3"), "{metrics}");
    assert!(line("sleuth_verdicts_total{class=\"valid\",reason=\"\"} 6000"));
    assert!(server.terminate().success());
}

#[test]
fn overload_is_503_with_a_time_and_coming_again_succeeds() {
    let arguments =
        [&HTTP[..], &["--simulated-device", "500,0.3", "--max-wait", "0.1", "--burst", "0"]]
            .concat();
    let server = Server::start(None, &arguments);
    let address = server.http.unwrap();
    let callers = (0..24).map(|n| {
        std::thread::spawn(move || {
            let text = format!("{PROMPT}There are {n} rings and a star.");
            let body = samples(&[&text]).to_string();
            let mut refused = 0;
            loop {
                let answer = send(address, "POST /get_reward", &[], body.as_bytes());
                match answer.status {
                    200 => return (refused, answer.body["rewards"][0].as_f64()),
                    503 => {
                        let after: u64 = answer.headers["retry-after"].parse().unwrap();
                        assert!((1..=600).contains(&after));
                        assert_eq!(answer.body["error"]["retryable"], true);
                        refused += 1;
                        assert!(refused < 1000);
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    other => panic!("{other}: {}", answer.body),
                }
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    let ended: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
    assert!(ended.iter().all(|(_, reward)| reward.is_some_and(|reward| reward > 0.0)));
    assert!(ended.iter().map(|(refused, _)| refused).sum::<i32>() > 0, "nothing was refused");
}

#[test]
fn a_drain_finishes_what_was_taken_and_refuses_what_comes() {
    let slow = [&HTTP[..], &["--simulated-device", "100000,1"]].concat();
    let mut server = Server::start(None, &slow);
    let address = server.http.unwrap();
    let body = samples(&[&format!("{PROMPT}{TEXT}")]).to_string();
    let taken = std::thread::spawn(move || send(address, "POST /get_reward", &[], body.as_bytes()));
    std::thread::sleep(Duration::from_millis(400));
    assert!(server.terminate().success(), "{}", server.log());
    let answer = taken.join().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body["rewards"][0].is_number());

    let server = Server::start(None, &[&HTTP[..], &DEVICE].concat());
    let drained = run(&["admin", "--target", &server.url(), "drain"]);
    assert!(drained.status.success(), "{}", stderr(&drained));
    for answer in [
        get(&server, "/health"),
        post(&server, "/get_reward", &samples(&[TEXT])),
        post(&server, "/classify", &chat(TEXT)),
    ] {
        assert_eq!((answer.status, &answer.body["error"]["class"]), (503, &json!("draining")));
        assert_eq!(answer.headers["retry-after"], "1");
    }
}

#[tokio::test]
async fn tokens_and_certificates_are_those_of_grpc() {
    let (files, authority) = (Files::new(), Authority::new());
    let (certificate, key) = files.write_leaf(&authority.issue("localhost"));
    let token = |name: &str, role: &str| {
        let output = run(&["token", "new", "--name", name, "--tenant", "team", "--role", role]);
        let entry = String::from_utf8(output.stdout.clone()).unwrap();
        (stderr(&output).trim().to_owned(), entry)
    };
    let ((score, first), (read, second)) = (token("a", "score"), token("b", "read"));
    let callers = files.write("callers.toml", &format!("{first}{second}"));
    let plain = [&HTTP[..], &DEVICE, &["--credentials", path(&callers)]].concat();
    let server = Server::start(None, &plain);
    let body = samples(&[&format!("{PROMPT}{TEXT}")]).to_string();
    let score_with = |token: Option<&str>| {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> =
            bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        send(server.http.unwrap(), "POST /get_reward", &headers, body.as_bytes())
    };
    assert_eq!(score_with(Some(&score)).status, 200);
    let missing = score_with(None);
    assert_eq!((missing.status, &missing.body["error"]["reason"]), (401, &json!("token_missing")));
    assert_eq!(missing.headers["www-authenticate"], "Bearer");
    let unknown = score_with(Some("sleuth_other"));
    assert_eq!((unknown.status, &unknown.body["error"]["reason"]), (401, &json!("token_unknown")));
    assert_eq!(score_with(Some(&read)).status, 403);
    assert_eq!(get(&server, "/health").status, 200);
    assert_eq!(get(&server, "/v1/models").status, 401);
    let bearer = format!("Bearer {read}");
    let models = send(server.http.unwrap(), "GET /v1/models", &[("authorization", &bearer)], b"");
    assert_eq!(models.status, 200);
    assert!(!server.log().contains(&score) && !server.log().contains("sleuth_other"));

    let tls = ["--tls-certificate", path(&certificate), "--tls-key", path(&key)];
    let server = Server::start(None, &[&plain[..], &tls].concat());
    let http = server.http.unwrap();
    // The process that serves has a provider of its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authority = reqwest::Certificate::from_pem(authority.pem.as_bytes()).unwrap();
    let client = reqwest::Client::builder()
        .tls_certs_only([authority])
        .resolve("localhost", http)
        .no_proxy()
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/get_reward", http.port());
    let request = client.post(url).bearer_auth(&score).body(body.clone());
    let answer: Value =
        serde_json::from_slice(&request.send().await.unwrap().bytes().await.unwrap()).unwrap();
    assert!(answer["rewards"][0].is_number(), "{answer}");
    let mut stream = TcpStream::connect(http).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("use https"), "{text}");
}
