//! The metrics of a real server, against their documentation, dashboard and alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use bytes::Bytes;
use regex::Regex;
use serde_json::{Value, json};
use sleuth_client::Client;
use sleuth_core::ScoreRequest;

use crate::command::{path, picture, root, sleuth, stdout};
use crate::server::Server;

/// What is said of a metric: its type, and its labels in order.
type Facts = (String, Vec<String>);

/// A metric's page, as Prometheus gets it.
struct Page(String);

impl Page {
    fn of(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nhost: sleuth\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("application/openmetrics-text"), "{head}");
        Self(body.to_owned())
    }

    fn samples(&self) -> impl Iterator<Item = &str> {
        self.0.lines().filter(|line| !line.starts_with('#'))
    }

    /// Each metric by the name that queries use.
    fn families(&self) -> BTreeMap<String, Facts> {
        let label = Regex::new(r#"([a-z_]+)=""#).unwrap();
        let types = self.0.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let mut families = BTreeMap::new();
        for line in types {
            let (name, kind) = line.split_once(' ').unwrap();
            let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
            let own = Regex::new(&format!(r"^{name}(_bucket|_sum|_count)?[{{ ]")).unwrap();
            let samples = self.samples().filter(|sample| own.is_match(sample));
            let labels: BTreeSet<String> = samples
                .flat_map(|sample| label.captures_iter(sample))
                .map(|found| found[1].to_owned())
                .filter(|label| label != "le")
                .collect();
            families.insert(name, (kind.to_owned(), labels.into_iter().collect()));
        }
        families
    }

    /// The value of the one sample that starts so.
    fn value(&self, start: &str) -> f64 {
        self.text(start).parse().unwrap()
    }

    /// As [`Self::value`], of what is a whole number.
    fn count(&self, start: &str) -> u64 {
        self.text(start).parse().unwrap()
    }

    fn text(&self, start: &str) -> &str {
        let found: Vec<&str> = self.samples().filter(|line| line.starts_with(start)).collect();
        let [line] = found[..] else { panic!("{start}: {found:?}") };
        line.rsplit(' ').next().unwrap()
    }
}

/// The table of docs/observability.md: name, type, labels, unit, meaning.
fn documented() -> BTreeMap<String, Facts> {
    let text = std::fs::read_to_string(root().join("docs/observability.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `sleuth_"));
    let rows = rows.map(|row| {
        let cells: Vec<String> =
            row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let [name, kind, labels, _unit, meaning] = cells.as_slice() else { panic!("{row}") };
        assert!(!meaning.is_empty(), "{row}");
        let mut labels: Vec<String> =
            labels.split(',').map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect();
        labels.sort();
        (name.clone(), (kind.clone(), labels))
    });
    rows.collect()
}

fn request(response: &str) -> ScoreRequest<Bytes> {
    ScoreRequest::new(std::fs::read(picture()).unwrap().into(), response)
}

/// Rewards that are all in the middle: unlike those of a trained model.
fn baseline(folder: &Path) -> String {
    let bounds =
        [0.0025, 0.0067, 0.018, 0.047, 0.12, 0.27, 0.5, 0.73, 0.88, 0.953, 0.982, 0.9933, 0.9975];
    let mut counts = [0; 14];
    counts[7] = 5000;
    let file = json!({
        "format": 1, "version": "before", "bounds": bounds.to_vec(), "counts": counts.to_vec(),
        "sum": 3000.0, "flagged": 500,
    });
    let name = folder.join("baseline.json");
    std::fs::write(&name, file.to_string()).unwrap();
    path(&name).to_owned()
}

/// Scores more than a thousand tokens, and one item that fails.
async fn served(folder: &Path) -> (Server, Page) {
    let baseline = baseline(folder);
    let arguments = ["--metrics-tenants=1", "--reward-baseline", &baseline];
    let server = Server::start(None, &arguments);
    let client = Client::connect(server.url()).await.unwrap();
    let response = "There are three objects. A small red star is left of a blue ring. ".repeat(4);
    for n in 0..20 {
        let scored = client.score(request(&format!("{response}{n} rings."))).await.unwrap();
        assert!(scored.tokens.len() >= 60);
    }
    assert!(client.score(request("")).await.is_err());
    let page = Page::of(server.admin);
    (server, page)
}

#[tokio::test]
async fn metrics_are_what_the_page_the_dashboard_and_the_alerts_say() {
    let folder = tempfile::tempdir().unwrap();
    let (server, page) = served(folder.path()).await;
    let router = Server::route(None, &[server.address], &["--metrics-tenants=1"]);
    let client = Client::connect(router.url()).await.unwrap();
    client.score(request("There are two objects.")).await.unwrap();
    let mut families = Page::of(router.admin).families();
    families.extend(page.families());
    let documented = documented();
    for (name, facts) in &families {
        assert_eq!(documented.get(name), Some(facts), "{name} in docs/observability.md");
    }
    for name in documented.keys() {
        assert!(families.contains_key(name), "{name} is documented and not emitted");
    }
    let used = Regex::new("sleuth_[a-z_]+").unwrap();
    for file in ["helm/sleuth/files/dashboard.json", "helm/sleuth/files/alerts.yaml"] {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let mut count = 0;
        for name in used.find_iter(&text).map(|found| found.as_str()) {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
                let base = name.strip_suffix(end)?;
                families.get(base).is_some_and(|(kind, _)| kind == "histogram").then_some(base)
            });
            assert!(base.is_some() || families.contains_key(name), "{name} in {file}");
            count += 1;
        }
        assert!(count > 10, "{file}");
    }
    counts_are_those_of_what_was_done(&page);
    drop(server);
}

fn counts_are_those_of_what_was_done(page: &Page) {
    let invalid = r#"class="invalid_request",reason="response_empty""#;
    assert_eq!(page.count(r#"sleuth_verdicts_total{class="valid""#), 20);
    assert_eq!(page.count(&format!("sleuth_verdicts_total{{{invalid}")), 1);
    assert_eq!(page.count(r#"sleuth_item_seconds_count{kind="whole",outcome="valid""#), 20);
    assert_eq!(page.count(r#"sleuth_tenant_verdicts_total{tenant="",outcome="valid""#), 20);
    assert_eq!(page.count("sleuth_items_in_flight"), 0);
    // The engine's counts have the golden rewards of the start in them.
    let golden = 3;
    assert_eq!(page.count("sleuth_queue_wait_seconds_count"), golden + 20);
    assert_eq!(page.count("sleuth_queue_wait_predicted_seconds_count"), golden + 20);
    assert!(page.count("sleuth_token_reward_count") >= 1200);
    let hits = r#"sleuth_cache_hits_total{cache="prefix""#;
    // One image and one prompt each; how many batches the golden rewards take is chance.
    assert!((19..19 + golden).contains(&page.count(hits)));
    assert!(page.0.contains(r#"kind="weights""#) && page.0.contains(r#"device="cpu""#));
    assert!(page.value("sleuth_reward_stability_index") > 0.25, "unlike the baseline");
    assert!((page.value("sleuth_baseline_flagged_rate") - 0.1).abs() < 1e-9);
    assert!(page.value("sleuth_process_resident_memory_bytes") > 1e6);
}

#[test]
fn a_baseline_that_eval_writes_is_one_that_serve_reads() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("baseline.json"));
    stdout(&["scenes", "--split", "validation", "--count", "3", "--out", path(&data)]);
    stdout(&["eval", "--data", path(&data), "--baseline", path(&file)]);
    let written: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let tokens: u64 = written["counts"].as_array().unwrap().iter().filter_map(Value::as_u64).sum();
    assert!(tokens > 100 && written["flagged"].as_u64().unwrap() < tokens, "{written}");
    let arguments = ["--reward-baseline", path(&file)];
    let server = Server::start(None, &arguments);
    let page = Page::of(server.admin);
    assert!(!page.0.contains("sleuth_reward_stability_index"), "nothing was scored yet");
    std::fs::write(&file, "{}").unwrap();
    let refused = sleuth(&["serve", "--listen=127.0.0.1:0"]).args(arguments).output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("baseline.json"));
}
