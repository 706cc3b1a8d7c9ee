//! A server that listens before its model has loaded, and the admin port beside it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use sleuth_proto::v1;
use sleuth_proto::v1::reward_service_client::RewardServiceClient;
use sleuth_server::{AdminPort, Drained, Hooks, Pages, ServeError, ServerSettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::harness::item;
use crate::running::{settings, start, start_loading};

async fn probe(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.rsplit("\r\n").next().unwrap().to_owned())
}

#[tokio::test]
async fn calls_while_loading_are_refused_for_a_second_and_served_after() {
    let mut server = start_loading(settings(), Hooks::default()).await;
    let mut service = RewardServiceClient::new(server.plain().await);
    let mut health = HealthClient::new(server.plain().await);
    let status = service.get_model(v1::GetModelRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "MODEL_LOADING");
    assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(1)));
    let status = service.score_tokens(tokio_stream::pending()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let said = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(said.status, ServingStatus::NotServing as i32);

    server.load();
    server.stage.serving().await;
    let items = vec![item("a", "a cat")];
    service.score_batch(v1::ScoreBatchRequest { items }).await.unwrap();
    let said = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(said.status, ServingStatus::Serving as i32);
}

#[tokio::test]
async fn probes_follow_the_server_from_loading_to_draining() {
    let hooks = Hooks::default();
    let port = AdminPort::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let (admin, pages) = (port.local_addr(), Pages::default());
    tokio::spawn(port.run(hooks.stage.clone(), pages.clone()));
    let settings = ServerSettings { drain_lag: Duration::from_millis(300), ..settings() };
    let mut server = start_loading(settings, hooks).await;
    assert_eq!(probe(admin, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(probe(admin, "/startupz").await, (503, "loading\n".to_owned()));
    assert_eq!(probe(admin, "/readyz").await, (503, "loading\n".to_owned()));
    assert_eq!(probe(admin, "/metrics").await.0, 404);
    server.load();
    server.stage.serving().await;
    pages.mount(Router::new().route("/metrics", get(|| async { "m 1\n" })));
    assert_eq!(probe(admin, "/startupz").await.0, 200);
    assert_eq!(probe(admin, "/readyz").await.0, 200);
    assert_eq!(probe(admin, "/metrics").await, (200, "m 1\n".to_owned()));
    assert_eq!(probe(admin, "/other").await.0, 404);
    let mut service = RewardServiceClient::new(server.plain().await);
    server.stop();
    while probe(admin, "/readyz").await.0 == 200 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(probe(admin, "/readyz").await, (503, "draining\n".to_owned()));
    assert_eq!(probe(admin, "/livez").await.0, 200);
    let items = vec![item("a", "a cat")];
    service.score_batch(v1::ScoreBatchRequest { items }).await.expect("within the lag");
    assert_eq!(server.ended().await.unwrap(), Drained::Complete);
}

#[tokio::test]
async fn a_model_that_does_not_load_ends_the_server_with_the_cause() {
    let mut server = start_loading(settings(), Hooks::default()).await;
    server.fail_to_load();
    assert!(matches!(server.ended().await, Err(ServeError::Load(_))));
}

#[tokio::test]
async fn a_server_that_is_stopped_while_loading_ends_well() {
    let mut server = start_loading(settings(), Hooks::default()).await;
    server.stop();
    assert_eq!(server.ended().await.unwrap(), Drained::Complete);
    let mut loaded = start(settings()).await;
    loaded.stop();
    assert_eq!(loaded.ended().await.unwrap(), Drained::Complete);
}
