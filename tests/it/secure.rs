//! TLS, tokens and rotation on the real binary, and what its log keeps quiet about.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use sleuth_client::{Client, ClientError, ClientSettings, RetrySettings, Security};
use sleuth_core::{ErrorClass, ScoreRequest, Secret};

use crate::certificates::{Authority, Files};
use crate::command::{json, path, picture, run, stderr};
use crate::server::Server;

struct Token {
    text: String,
    entry: String,
}

/// As `sleuth token new` makes it.
fn token(name: &str, tenant: &str, role: &str) -> Token {
    let arguments = ["token", "new", "--name", name, "--tenant", tenant, "--role", role];
    let output = run(&arguments);
    assert!(output.status.success());
    let entry = String::from_utf8(output.stdout.clone()).unwrap();
    Token { text: stderr(&output).trim().to_owned(), entry }
}

fn request(response: &str) -> ScoreRequest<bytes::Bytes> {
    ScoreRequest::new(fs::read(picture()).unwrap().into(), response)
}

/// Trusts an authority, and shows a token.
fn security(authority: &Authority, token: Option<&str>) -> Security {
    Security {
        authorities: Some(authority.pem.clone()),
        server_name: Some("localhost".to_owned()),
        token: token.map(Secret::new),
        ..Security::default()
    }
}

async fn client(server: &Server, security: &Security) -> Result<Client, ClientError> {
    let settings = ClientSettings { retry: RetrySettings::NEVER, ..ClientSettings::default() };
    Client::connect_secured(format!("https://{}", server.address), settings, security).await
}

fn class(error: &ClientError) -> Option<ErrorClass> {
    match error {
        ClientError::Refused(refusal) | ClientError::StreamEnded(Some(refusal)) => {
            Some(refusal.class)
        }
        _ => None,
    }
}

/// A server with a certificate and credentials.
fn start(files: &Files, authority: &Authority, credentials: &str, more: &[&str]) -> Server {
    let (certificate, key) = files.write_leaf(&authority.issue("localhost"));
    let credentials = files.write("callers.toml", credentials);
    let mut arguments = vec!["--tls-certificate", path(&certificate), "--tls-key", path(&key)];
    arguments.extend(["--credentials", path(&credentials), "--reload-interval", "0.05"]);
    arguments.extend(more);
    let mut server = Server::start_loading(None, &arguments, &[("SLEUTH_LOG", "trace")]);
    server.ready();
    server
}

#[tokio::test]
async fn known_callers_score_over_tls_and_nothing_secret_is_logged() {
    let (files, authority) = (Files::new(), Authority::new());
    let (good, bad) = (token("t", "team", "score"), token("x", "team", "score"));
    let mut server = start(&files, &authority, &good.entry, &["--log-json"]);
    let known = client(&server, &security(&authority, Some(&good.text))).await.unwrap();
    let mut item = request("A quokka is left of a red ring.");
    item.context.prompt = Some("Where is the wombat?".to_owned());
    known.score(item.clone()).await.unwrap();
    for shown in [None, Some(bad.text.as_str())] {
        let unknown = client(&server, &security(&authority, shown)).await.unwrap();
        let error = unknown.score(item.clone()).await.unwrap_err();
        assert_eq!(class(&error), Some(ErrorClass::Unauthenticated), "{error}");
        assert!(!error.is_retryable());
        assert!(!format!("{error:?}").contains(&bad.text));
    }
    let plain = Client::connect(format!("http://{}", server.address)).await;
    if let Ok(plain) = plain {
        assert!(plain.model().await.is_err());
    }
    assert!(server.terminate().success());
    let log = server.log();
    assert!(log.contains("\"level\":\"TRACE\"") && log.contains("a call is refused"));
    let image = fs::read(picture()).unwrap();
    let bytes = format!("{:?}", &image[100..120]);
    let bytes = bytes.trim_matches(['[', ']']);
    for secret in [&good.text, &bad.text, "quokka", "wombat", "PRIVATE KEY", bytes] {
        assert!(!log.contains(secret), "{secret} is logged");
    }
    for line in log.lines() {
        let parsed: Result<Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok(), "{line}");
    }
}

#[tokio::test]
async fn certificates_and_tokens_are_rotated_under_load_and_no_item_fails() {
    let (files, old, new) = (Files::new(), Authority::new(), Authority::new());
    let (first, second) = (token("first", "team", "score"), token("second", "team", "score"));
    let device = ["--simulated-device", "1000000,0.001"];
    let mut server = start(&files, &old, &first.entry, &device);
    let caller = client(&server, &security(&old, Some(&first.text))).await.unwrap();
    let load = tokio::spawn(async move {
        for n in 0..200 {
            caller.score(request(&format!("There are {n} rings."))).await.unwrap();
        }
    });
    // Both tokens, so that callers can change over; then a new certificate.
    files.write("callers.toml", &format!("{}{}", first.entry, second.entry));
    files.write_leaf(&new.issue("localhost"));
    server.signal("HUP");
    let security = security(&new, Some(&second.text));
    let mut turns = 0;
    let fresh = loop {
        // The first call tells whether the token is known.
        if let Ok(fresh) = client(&server, &security).await
            && fresh.model().await.is_ok()
        {
            break fresh;
        }
        turns += 1;
        assert!(turns < 400, "the new ones are never used: {}", server.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    fresh.score(request("A circle.")).await.unwrap();
    load.await.unwrap();
    files.write("callers.toml", &second.entry);
    files.write("tls.crt", "broken");
    let mut turns = 0;
    while fresh.model().await.is_ok() && !server.log().contains("the old one stays") {
        turns += 1;
        assert!(turns < 400, "the broken certificate is never noticed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fresh.score(request("A square.")).await.unwrap();
    assert!(server.terminate().success());
}

#[test]
fn a_token_is_shown_once_and_its_entry_holds_its_digest() {
    let token = token("trainer-1", "vision", "score");
    assert!(token.text.starts_with("sleuth_"));
    assert!(!token.entry.contains(&token.text));
    let digest = blake3::hash(token.text.as_bytes()).to_hex().to_string();
    assert!(token.entry.contains(&digest));
    let files = Files::new();
    let credentials = files.write("callers.toml", &token.entry);
    let file = format!("[auth]\ncredentials = {:?}\n", path(&credentials));
    let file = files.write("sleuth.toml", &file);
    let check = |file: &Path| run(&["config", "check", path(file)]);
    assert!(check(&file).status.success());
    files.write("callers.toml", &token.entry.replace(&digest, &token.text));
    let said = stderr(&check(&file));
    assert!(said.contains("64 hexadecimal digits") && !said.contains(&token.text), "{said}");
    let object = json(&[
        "token", "new", "--tenant", "a", "--role", "read", "--role", "admin", "--format", "json",
    ]);
    assert_eq!(object["name"], "a");
    assert_eq!(object["roles"], serde_json::json!(["read", "admin"]));
}

#[test]
fn tokens_over_a_plain_network_take_a_flag() {
    let arguments = ["serve", "--listen", "0.0.0.0:0", "--credentials", "callers.toml"];
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("tokens would be readable"), "{}", stderr(&output));
}

#[test]
fn the_bench_drives_a_secured_server() {
    let (files, authority) = (Files::new(), Authority::new());
    let token = token("bench", "bench", "score");
    let device = ["--simulated-device", "1000000,0.001"];
    let server = start(&files, &authority, &token.entry, &device);
    let ca = files.write("ca.crt", &authority.pem);
    let file = files.write("token", &format!("{}\n", token.text));
    let target = format!("https://localhost:{}", server.address.port());
    let mut arguments = vec!["bench", "--target", &target, "--rate", "50", "--seconds", "1"];
    arguments.extend(["--ca", path(&ca), "--token-file", path(&file), "--format", "json"]);
    let report = json(&arguments);
    assert_eq!(report["passes"], true, "{report}");
}

#[test]
fn the_bench_ends_with_what_share_was_valid() {
    // Nothing that takes longer than no time is taken.
    let device = ["--simulated-device", "1000,1", "--max-wait", "0", "--burst", "0"];
    let server = Server::start(None, &device);
    let url = server.url();
    let bench = |more: &[&str]| {
        let arguments = ["bench", "--target", &url, "--rate", "50", "--seconds", "1"];
        run(&[&arguments, more].concat())
    };
    assert_eq!(bench(&["--seed", "1"]).status.code(), Some(0), "refusals break no promise");
    let fewer = bench(&["--seed", "2", "--expect-valid", "1"]);
    assert_eq!(fewer.status.code(), Some(1));
    assert!(stderr(&fewer).contains("fewer than --expect-valid"), "{}", stderr(&fewer));
}

#[test]
fn a_router_says_why_a_replica_does_not_let_it_in() {
    let folder = tempfile::tempdir().unwrap();
    let known = folder.path().join("callers.toml");
    fs::write(&known, token("router", "routers", "router").entry).unwrap();
    let shown = folder.path().join("token");
    fs::write(&shown, token("router", "routers", "router").text).unwrap();
    let device = ["--simulated-device", "100000,0.002", "--credentials", path(&known)];
    let replica = Server::start(None, &device);
    let arguments = ["--replica-token-file", path(&shown)];
    let router = Server::route_to_none(None, &[replica.address], &arguments);
    let why = || {
        let page: Value = serde_json::from_str(&router.page("/replicas").1).unwrap();
        page["replicas"][0]["why"].as_str().unwrap_or_default().to_owned()
    };
    let told = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        why().contains("unauthenticated")
    });
    assert!(told, "{}", why());
    assert!(router.log().contains("replica not reached"), "{}", router.log());
}

/// The router tells callers apart; replicas believe it, as its token has the role for that.
#[tokio::test(flavor = "multi_thread")]
async fn callers_stay_apart_behind_a_router() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        file
    };
    let router_token = token("router", "routers", "router");
    let [one, two] = ["one", "two"].map(|tenant| token(tenant, tenant, "score"));
    let replica_callers = file("replica.toml", &router_token.entry);
    let callers = file("callers.toml", &format!("{}\n{}", one.entry, two.entry));
    let shown = file("token", &router_token.text);
    let metrics = "--metrics-tenants=4";
    let replica = Server::start(None, &["--credentials", path(&replica_callers), metrics]);
    let arguments = ["--credentials", path(&callers), "--replica-token-file", path(&shown)];
    let router = Server::route(None, &[replica.address], &arguments);
    let connect = async |server: &Server, token: &Token| {
        let security =
            Security { token: Some(Secret::new(token.text.as_str())), ..Security::default() };
        let settings = ClientSettings { retry: RetrySettings::NEVER, ..ClientSettings::default() };
        Client::connect_secured(server.url(), settings, &security).await.unwrap()
    };
    let (first, second) = (connect(&router, &one).await, connect(&router, &two).await);
    let digest = first.put_image(fs::read(picture()).unwrap().into()).await.unwrap();
    let mut named = request("There are two objects.");
    named.context.image = sleuth_core::ImageSource::Digest(digest);
    first.score(named.clone()).await.unwrap();
    let error = second.score(named).await.unwrap_err();
    assert_eq!(class(&error), Some(ErrorClass::Unknown), "images are a tenant's own: {error}");
    second.score(request("There are three objects.")).await.unwrap();
    let page = replica.page("/metrics").1;
    for tenant in ["one", "two"] {
        let counted =
            format!("sleuth_tenant_verdicts_total{{tenant=\"{tenant}\",outcome=\"valid\"}} 1");
        assert!(page.contains(&counted), "{page}");
    }
    // Those who are known at the router are nobody at the replica.
    let direct = connect(&replica, &one).await.score(request("A circle.")).await.unwrap_err();
    assert_eq!(class(&direct), Some(ErrorClass::Unauthenticated));
}
