//! Limits of connections and headers.

use std::time::Duration;

use sleuth_proto::v1;
use sleuth_proto::v1::reward_service_client::RewardServiceClient;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Request;

use crate::running::{settings, start};

const MOMENT: Duration = Duration::from_millis(150);

async fn answers(service: &mut RewardServiceClient<tonic::transport::Channel>) -> bool {
    let call = service.get_model(v1::GetModelRequest::default());
    timeout(MOMENT, call).await.is_ok_and(|answer| answer.is_ok())
}

#[tokio::test]
async fn who_comes_when_all_places_are_taken_waits_for_one() {
    let mut settings = settings();
    settings.connection.max_connections = 2;
    let server = start(settings).await;
    let mut first = RewardServiceClient::new(server.plain().await);
    let mut second = RewardServiceClient::new(server.plain().await);
    assert!(answers(&mut first).await && answers(&mut second).await);
    // The system takes it into its backlog; the server does not.
    let mut third = RewardServiceClient::new(server.plain().await);
    assert!(!answers(&mut third).await);
    drop(second);
    let mut turns = 0;
    while !answers(&mut third).await {
        turns += 1;
        assert!(turns < 20, "a place is never given back");
    }
    assert!(answers(&mut first).await);
}

#[tokio::test]
async fn headers_over_the_limit_are_refused_and_cost_nobody_else_anything() {
    let mut settings = settings();
    settings.connection.max_header_bytes = 4 << 10;
    let server = start(settings).await;
    let mut service = RewardServiceClient::new(server.plain().await);
    let mut large = Request::new(v1::GetModelRequest::default());
    large.metadata_mut().insert("x-large", "x".repeat(8 << 10).parse().unwrap());
    assert!(service.get_model(large).await.is_err());
    let mut small = Request::new(v1::GetModelRequest::default());
    small.metadata_mut().insert("x-small", "x".repeat(1 << 10).parse().unwrap());
    service.get_model(small).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let mut settings = settings();
    settings.connection.handshake_timeout = MOMENT;
    let server = start(settings).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut rest = Vec::new();
    let closed = timeout(20 * MOMENT, silent.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "it is still open");
    let mut service = RewardServiceClient::new(server.plain().await);
    tokio::time::sleep(2 * MOMENT).await;
    assert!(answers(&mut service).await, "one that has spoken stays open");
}
