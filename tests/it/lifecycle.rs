//! From the first byte of a listener to the last, and the settings that a server starts with.

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use sleuth_client::{Client, ClientError, ClientSettings, RetrySettings};
use sleuth_core::ScoreRequest;
use tokio::time::Instant;

use crate::command::{picture, run, sleuth, stderr, stdout};
use crate::server::Server;

fn request(response: &str) -> ScoreRequest<bytes::Bytes> {
    ScoreRequest::new(fs::read(picture()).unwrap().into(), response)
}

/// A device on which every batch takes long.
const SLOW: [&str; 2] = ["--simulated-device", "100000,2"];

async fn impatient(address: SocketAddr) -> Client {
    let settings = ClientSettings { retry: RetrySettings::NEVER, ..ClientSettings::default() };
    Client::connect_with(format!("http://{address}"), settings).await.unwrap()
}

#[tokio::test]
async fn probes_and_calls_are_answered_from_the_first_moment() {
    let mut server = Server::start_loading(None, &[], &[]);
    assert_eq!(server.page("/livez"), (200, "ok\n".to_owned()));
    // Whether it is still loading now depends on the machine; both answers are right.
    let client = impatient(server.address).await;
    match client.model().await {
        Ok(card) => assert_eq!(card.name, "mini"),
        Err(ClientError::Refused(refusal)) => {
            assert_eq!((refusal.reason.as_str(), refusal.retryable), ("model_loading", true));
        }
        Err(other) => panic!("{other}"),
    }
    server.ready();
    assert_eq!(server.page("/startupz").0, 200);
    assert_eq!(server.page("/readyz"), (200, "ok\n".to_owned()));
    client.score(request("A circle.")).await.unwrap();
    assert!(server.terminate().success());
}

#[test]
fn a_model_that_does_not_load_ends_the_server_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "off", "--model"];
    let output = sleuth(&arguments).arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("the model did not load") && said.contains("config.json"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_signal_lets_items_finish_and_new_ones_go_elsewhere() {
    let mut server = Server::start(None, &SLOW);
    let client = impatient(server.address).await;
    let running = client.clone();
    let item = tokio::spawn(async move { running.score(request("A circle.")).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.signal("TERM");
    until(|| server.page("/readyz") == (503, "draining\n".to_owned())).await;
    assert_eq!(server.page("/livez").0, 200);
    until(|| server.log().contains("new items are refused")).await;
    let refused = client.score(request("A square.")).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused}");
    item.await.unwrap().unwrap();
    assert!(server.ended().success());
    assert_eq!(server.computed(), 1);
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..4000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never became true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let mut server = Server::start(None, &["--simulated-device", "100000,30"]);
    let client = impatient(server.address).await;
    let item = tokio::spawn(async move { client.score(request("A circle.")).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.signal("TERM");
    until(|| server.page("/readyz").0 == 503).await;
    let told = Instant::now();
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(130));
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
    assert!(item.await.unwrap().is_err());
    assert!(server.log().contains("unfinished items are given up"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unfinished_at_the_deadline_is_cut_off_and_told() {
    let slow = ["--simulated-device", "100000,30", "--drain-deadline", "0.5"];
    let mut server = Server::start(None, &slow);
    let client = impatient(server.address).await;
    let item = tokio::spawn(async move { client.score(request("A circle.")).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.signal("TERM");
    let error = item.await.unwrap().unwrap_err();
    assert!(error.is_retryable(), "{error}");
    // The device's batch has ten seconds more, then the process ends without it.
    assert_eq!(server.ended().code(), Some(1));
}

#[test]
fn a_settings_file_is_checked_and_every_fault_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sleuth.toml");
    fs::write(&file, "[engine]\nworkers = 0\n\n[limits]\nmax_connection = 1\n").unwrap();
    let output = run(&["config", "check", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("line 2): must be a whole number, 1 to 1024"), "{said}");
    assert!(said.contains("did you mean limits.max_connections?"), "{said}");
    // `serve` says the same and starts nothing.
    let output = run(&["serve", "--config", file.to_str().unwrap()]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), said));

    fs::write(&file, "[tls]\ncertificate = \"no.crt\"\nkey = \"no.key\"\n").unwrap();
    let output = run(&["config", "check", file.to_str().unwrap()]);
    assert!(stderr(&output).contains("cannot read no.crt"), "{}", stderr(&output));
    fs::write(&file, "[engine]\nworkers = 2\n").unwrap();
    assert!(stdout(&["config", "check", file.to_str().unwrap()]).ends_with("is valid\n"));
}

#[test]
fn settings_are_printed_with_their_origin() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sleuth.toml");
    fs::write(&file, "[engine]\nworkers = 2\nthreads = 1\n").unwrap();
    let mut command = sleuth(&["config", "print", "--threads", "3"]);
    let output = command
        .env("SLEUTH_CONFIG", &file)
        .env("SLEUTH_LOG", "debug")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains(&format!("workers = 2 # {} line 2\n", file.display())), "{printed}");
    assert!(printed.contains("threads = 3 # flag --threads\n"), "{printed}");
    assert!(printed.contains("filter = \"debug\" # environment SLEUTH_LOG\n"), "{printed}");
    assert!(printed.contains("max_connections = 4096 # default\n"), "{printed}");
    let output = sleuth(&["config", "print"]).env("SLEUTH_WORKERS", "2").output().unwrap();
    assert!(stderr(&output).contains("SLEUTH_WORKERS"), "{}", stderr(&output));
}

#[test]
fn probe_ends_with_what_the_admin_port_answers() {
    let server = Server::start(None, &["--simulated-device", "100000,0.002"]);
    let probe = |path: &str| run(&["probe", &format!("http://{}{path}", server.admin)]);
    let ready = probe("/readyz");
    assert_eq!((ready.status.code(), &*stdout_of(&ready)), (Some(0), "200 ok\n"));
    let nothing = probe("/nothing");
    assert_eq!(nothing.status.code(), Some(1));
    assert!(stdout_of(&nothing).starts_with("404"));
    let admin = server.admin;
    drop(server);
    let nobody = run(&["probe", &format!("http://{admin}/livez"), "--timeout", "1"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(stderr(&nobody).contains(&format!("ask http://{admin}/livez")), "{}", stderr(&nobody));
}

fn stdout_of(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
