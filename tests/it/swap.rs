//! Versions and adapters exchanged on a running server, as an operator does it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sleuth_client::{Client, ClientError};
use sleuth_core::{Group, ScoreRequest, Scored};

use crate::command::{copy, mini, path, picture, run, sleuth, stderr};
use crate::server::Server;

/// A model root with `mini`, `bare` (the backbone with its own head, another version) and `wrong`
/// (mini with golden rewards that it does not give).
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for name in ["mini", "bare", "wrong"] {
        copy(&mini(), &root.path().join(name));
    }
    fs::remove_dir_all(root.path().join("bare/adapter")).unwrap();
    falsify(&root.path().join("wrong/adapter/self_test.json"));
    root
}

fn falsify(file: &Path) {
    let mut test: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let logit = &mut test["cases"][1]["logits"][3];
    *logit = (logit.as_f64().unwrap() + 0.01).into();
    fs::write(file, test.to_string()).unwrap();
}

fn start(root: &tempfile::TempDir, more: &[&str]) -> Server {
    let model = root.path().join("mini");
    let arguments = ["--model", path(&model), "--model-root", path(root.path())];
    Server::start(None, &[&arguments, more].concat())
}

/// `sleuth admin` against a server; its JSON, or what it says to standard error.
pub(crate) fn admin(server: &Server, arguments: &[&str]) -> Result<Value, String> {
    let url = server.url();
    let output = run(&[&["admin", "--json", "--target", &url], arguments].concat());
    if !output.status.success() {
        return Err(stderr(&output));
    }
    Ok(serde_json::from_slice(&output.stdout).unwrap())
}

fn request(response: &str) -> ScoreRequest<Bytes> {
    ScoreRequest::new(fs::read(picture()).unwrap().into(), response)
}

fn with_adapter(name: &str) -> ScoreRequest<Bytes> {
    let mut request = request("A red star.");
    request.context.adapter = Some(name.to_owned());
    request
}

fn member(group: usize, n: usize) -> ScoreRequest<Bytes> {
    let mut request = request(&format!("There are {n} objects in group {group}."));
    request.context.group =
        Some(Group { id: format!("g{group}"), size: Some(8), expected_response_tokens: None });
    request
}

/// Prometheus takes no page on which a name and its labels stand twice.
fn assert_no_metric_is_there_twice(server: &Server) {
    let (status, page) = server.page("/metrics");
    assert_eq!(status, 200);
    let mut seen = HashSet::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').expect("a value").0;
        assert!(seen.insert(series.to_owned()), "twice: {series}");
    }
}

/// Sends groups of 8, one after the other, until told to stop; the versions of each.
async fn groups(client: Client, first: usize, stop: Arc<AtomicBool>) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let group = first + all.len();
        let mut versions = Vec::new();
        for pair in 0..4 {
            let both = [member(group, 2 * pair), member(group, 2 * pair + 1)];
            let scored = both.map(|request| client.score(request));
            for scored in futures::future::join_all(scored).await {
                versions.push(scored.expect("nothing fails").version);
            }
        }
        all.push(versions);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_nothing_fails_and_no_group_is_mixed() {
    let root = root();
    let mut server = start(&root, &[]);
    let client = Client::connect(server.url()).await.unwrap();
    let first = client.model().await.unwrap().version;
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..3)
        .map(|n| tokio::spawn(groups(client.clone(), n * 10_000, Arc::clone(&stop))))
        .collect();
    let mut swapped = Vec::new();
    for folder in ["bare", "mini", "bare", "mini"] {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let done = admin(&server, &["load-weights", folder]).unwrap();
        swapped.push(done["version"].as_str().unwrap().to_owned());
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_no_metric_is_there_twice(&server);
    stop.store(true, Ordering::SeqCst);
    assert_eq!(swapped[1], first);
    assert_ne!(swapped[0], first);
    let mut by_version: HashMap<String, usize> = HashMap::new();
    for task in load {
        for versions in task.await.unwrap() {
            assert!(versions.iter().all(|v| *v == versions[0]), "a mixed group: {versions:?}");
            *by_version.entry(versions[0].clone()).or_default() += 1;
        }
    }
    assert!(by_version.len() == 2 && by_version.values().all(|&n| n > 0), "{by_version:?}");
    assert!(server.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_gives_other_rewards_is_refused() {
    let root = root();
    let server = start(&root, &["--require-self-test"]);
    let refused = admin(&server, &["load-weights", "wrong"]).unwrap_err();
    assert!(refused.contains("case 1") && refused.contains("transformers"), "{refused}");
    let refused = admin(&server, &["load-weights", "bare"]).unwrap_err();
    assert!(refused.contains("self_test.json"), "no proof: {refused}");
    let refused = admin(&server, &["load-weights", "mini", "--expect", "0123"]).unwrap_err();
    assert!(refused.contains("the files have version"), "{refused}");
    let refused = admin(&server, &["load-weights", "nowhere"]).unwrap_err();
    assert!(refused.contains("model root"), "{refused}");
    let client = Client::connect(server.url()).await.unwrap();
    client.score(request("A red star.")).await.unwrap();
}

#[test]
fn a_server_whose_rewards_are_wrong_does_not_become_ready() {
    let root = root();
    let output = sleuth(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", "off", "--model"])
        .arg(root.path().join("wrong"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("ready"));
    let said = stderr(&output);
    assert!(said.contains("must not serve") && said.contains("token 3"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn adapters_come_and_go() {
    let root = root();
    let server = start(&root, &[]);
    let client = Client::connect(server.url()).await.unwrap();
    let score = async |name: &str| -> Result<Scored, ClientError> {
        client.score(with_adapter(name)).await
    };
    let unknown = score("extra").await.unwrap_err();
    assert!(unknown.to_string().contains("no such adapter"), "{unknown}");
    let loaded = admin(&server, &["load-adapter", "extra", "mini/adapter"]).unwrap();
    assert!(loaded["size_bytes"].as_u64().unwrap() > 1 << 20, "{loaded}");
    let (own, extra) = (score("adapter").await.unwrap(), score("extra").await.unwrap());
    assert_eq!(own.tokens, extra.tokens, "one adapter under two names");
    let all = admin(&server, &["adapters"]).unwrap();
    let names: Vec<_> = all.as_array().unwrap().iter().map(|a| a["name"].as_str()).collect();
    assert_eq!(names, [Some("adapter"), Some("extra")]);
    assert_no_metric_is_there_twice(&server);
    admin(&server, &["unload-adapter", "extra"]).unwrap();
    assert!(score("extra").await.is_err());
    assert!(admin(&server, &["unload-adapter", "adapter"]).unwrap_err().contains("default"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_server_stays_and_takes_no_more() {
    let root = root();
    let mut server = start(&root, &[]);
    let client = Client::connect(server.url()).await.unwrap();
    client.score(request("A red star.")).await.unwrap();
    assert_eq!(admin(&server, &["drain"]).unwrap()["abandoned_items"], 0);
    assert_eq!(server.page("/readyz"), (503, "draining\n".to_owned()));
    assert_eq!(server.page("/livez").0, 200);
    assert!(server.terminate().success());
}
