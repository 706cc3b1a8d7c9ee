//! TLS over real connections.

use std::io::ErrorKind;
use std::time::Duration;

use sleuth_client::{Client, ClientSettings, RetrySettings};
use sleuth_server::{ServerSettings, TlsSettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::certificates::{Authority, Files, Leaf};
use crate::harness::request;
use crate::running::{Running, settings, start};

fn tls(files: &Files, leaf: &Leaf, client_ca: Option<&Authority>) -> ServerSettings {
    let (certificate, key) = files.write_leaf(leaf);
    let client_ca = client_ca.map(|authority| files.write("ca.crt", &authority.pem));
    ServerSettings { tls: Some(TlsSettings { certificate, key, client_ca }), ..settings() }
}

/// Whether an item is scored over this channel.
async fn scores(channel: Channel) -> bool {
    let settings = ClientSettings { retry: RetrySettings::NEVER, ..ClientSettings::default() };
    Client::from_channel(channel, settings).score(request("a cat")).await.is_ok()
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(|error| format!("{error:?} {error}")).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn who_trusts_the_authority_is_served_and_who_does_not_goes() {
    let (authority, other, files) = (Authority::new(), Authority::new(), Files::new());
    let server = start(tls(&files, &authority.issue("localhost"), None)).await;
    assert!(scores(server.tls(&authority.pem, None).await.unwrap()).await);
    assert!(server.tls(&other.pem, None).await.is_err());
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_clients() {
    let (authority, files) = (Authority::new(), Files::new());
    let expired = authority.issue_until("localhost", 2020);
    let server = start(tls(&files, &expired, None)).await;
    let error = server.tls(&authority.pem, None).await.unwrap_err();
    assert!(chain(&error).contains("Expired"), "{}", chain(&error));
}

#[tokio::test]
async fn clients_show_a_certificate_of_the_authority_that_has_not_expired() {
    let (authority, other, files) = (Authority::new(), Authority::new(), Files::new());
    let server = start(tls(&files, &authority.issue("localhost"), Some(&authority))).await;
    let bad = [
        None,
        Some(other.issue("trainer.internal")),
        Some(authority.issue_until("trainer.internal", 2020)),
    ];
    for own in &bad {
        // With TLS 1.3 the client may learn only with its first call that it is refused.
        if let Ok(channel) = server.tls(&authority.pem, own.as_ref()).await {
            assert!(!scores(channel).await);
        }
    }
    assert_eq!(server.fake.started(), 0);
    let own = authority.issue("trainer.internal");
    assert!(scores(server.tls(&authority.pem, Some(&own)).await.unwrap()).await);
}

/// Waits until new connections see, or do not see, what an authority signed.
async fn until_trusted(server: &Running, authority: &Authority) -> Channel {
    for _ in 0..4000 {
        if let Ok(channel) = server.tls(&authority.pem, None).await {
            return channel;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the new certificate is never used");
}

#[tokio::test]
async fn certificates_are_rotated_under_a_connection() {
    let (old, new, files) = (Authority::new(), Authority::new(), Files::new());
    let server = start(tls(&files, &old.issue("localhost"), None)).await;
    let channel = server.tls(&old.pem, None).await.unwrap();
    let client = Client::from_channel(channel.clone(), ClientSettings::default());
    let waiting = tokio::spawn(async move { client.score(request("gate")).await });
    while server.fake.started() == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    files.write_leaf(&new.issue("localhost"));
    let fresh = until_trusted(&server, &new).await;
    assert!(scores(fresh).await);
    assert!(server.tls(&old.pem, None).await.is_err(), "new connections get the new one");
    assert!(scores(channel).await, "the old connection goes on");
    server.fake.open_gate(1);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_broken_certificate_leaves_the_old_one() {
    let (authority, files) = (Authority::new(), Files::new());
    let server = start(tls(&files, &authority.issue("localhost"), None)).await;
    let another_key = authority.issue("localhost").key;
    for (name, text) in [("tls.crt", "no certificate"), ("tls.key", another_key.as_str())] {
        files.write(name, text);
        server.reloader.reload();
        tokio::time::sleep(Duration::from_millis(80)).await;
        assert!(scores(server.tls(&authority.pem, None).await.unwrap()).await);
    }
    let next = Authority::new();
    files.write_leaf(&next.issue("localhost"));
    until_trusted(&server, &next).await;
}

#[tokio::test]
async fn a_plain_client_is_told_that_the_port_speaks_tls() {
    let (authority, files) = (Authority::new(), Files::new());
    let server = start(tls(&files, &authority.issue("localhost"), None)).await;
    let mut http1 = TcpStream::connect(server.address).await.unwrap();
    http1.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    http1.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("speaks TLS: use https\n"));

    // A gRPC client gets a GOAWAY with the reason; how much of it it shows is its own matter.
    let mut http2 = TcpStream::connect(server.address).await.unwrap();
    http2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut answer = Vec::new();
    http2.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.get(9 + 3), Some(&7), "a GOAWAY frame after SETTINGS");
    assert!(answer.ends_with(b"this port speaks TLS: use https"));
    let url = format!("http://{}", server.address);
    let plain = Endpoint::from_shared(url).unwrap().connect_lazy();
    assert!(!scores(plain).await);
    assert!(scores(server.tls(&authority.pem, None).await.unwrap()).await);
}

#[tokio::test]
async fn a_silent_client_ends_and_holds_up_nobody_for_longer() {
    let (authority, files) = (Authority::new(), Files::new());
    let mut settings = tls(&files, &authority.issue("localhost"), None);
    settings.connection.max_handshakes = 1;
    settings.connection.handshake_timeout = Duration::from_millis(200);
    let server = start(settings).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    assert!(scores(server.tls(&authority.pem, None).await.unwrap()).await);
    let end = silent.read(&mut [0; 8]).await;
    assert!(end.as_ref().map_or_else(|e| e.kind() == ErrorKind::ConnectionReset, |n| *n == 0));
}

#[tokio::test]
async fn what_cannot_be_read_is_told_before_anything_listens() {
    let (authority, files) = (Authority::new(), Files::new());
    let mut settings = tls(&files, &authority.issue("localhost"), Some(&authority));
    files.write("ca.crt", "nothing");
    settings.credentials = Some(files.path("missing.toml"));
    let faults = sleuth_server::Server::check_files(&settings);
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    let [ca, credentials] = faults.as_slice() else { panic!("{faults:?}") };
    assert!(ca.ends_with("ca.crt holds no certificate in PEM"), "{ca}");
    assert!(credentials.ends_with("missing.toml"), "{credentials}");
    assert!(sleuth_server::Server::bind(settings).await.is_err());
}
