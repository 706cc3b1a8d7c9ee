use std::convert::Infallible;
use std::future::ready;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use sleuth_client::Client;
use sleuth_proto::v1;
use sleuth_proto::v1::admin_service_client::AdminServiceClient;
use sleuth_proto::v1::replica_service_client::ReplicaServiceClient;
use sleuth_server::{Drained, ServeError, Server, ServerSettings};
use sleuth_service::Scorer;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt as _;

use crate::fake::Fake;
use crate::harness::{request, settings, start};

#[tokio::test]
async fn reflection_lists_every_service() {
    let harness = start(settings()).await;
    let mut reflection = ServerReflectionClient::new(harness.channel.clone());
    let ask =
        |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let asked = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("sleuth.v1.RewardService".to_owned())),
    ];
    let replies = reflection.server_reflection_info(tokio_stream::iter(asked)).await.unwrap();
    let mut replies = replies.into_inner();
    let listed = replies.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(listed) = listed else { panic!("{listed:?}") };
    let names: Vec<_> = listed.service.iter().map(|s| s.name.as_str()).collect();
    for name in [
        "sleuth.v1.RewardService",
        "sleuth.v1.ReplicaService",
        "sleuth.v1.AdminService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    let file = replies.message().await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(file, MessageResponse::FileDescriptorResponse(_)), "{file:?}");
}

#[tokio::test]
async fn health_says_serving() {
    let harness = start(settings()).await;
    let mut health = HealthClient::new(harness.channel.clone());
    for service in ["", "sleuth.v1.RewardService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let reply = health.check(request).await.unwrap().into_inner();
        assert_eq!(reply.status, ServingStatus::Serving as i32, "`{service}`");
    }
}

#[tokio::test]
async fn what_is_not_offered_is_unimplemented_and_says_so() {
    let harness = start(settings()).await;
    let mut service = harness.service();
    let mut replica = ReplicaServiceClient::new(harness.channel.clone());
    let mut admin = AdminServiceClient::new(harness.channel.clone());
    let correct = tokio_stream::iter([v1::CorrectRequest::default()]);
    let refused = [
        service.correct(correct).await.unwrap_err(),
        replica.watch_load(v1::WatchLoadRequest::default()).await.unwrap_err(),
        admin.list_adapters(v1::ListAdaptersRequest {}).await.unwrap_err(),
        admin.load_adapter(v1::LoadAdapterRequest::default()).await.unwrap_err(),
        admin.unload_adapter(v1::UnloadAdapterRequest::default()).await.unwrap_err(),
        admin.load_weights(v1::LoadWeightsRequest::default()).await.unwrap_err(),
        admin.set_log_filter(v1::SetLogFilterRequest::default()).await.unwrap_err(),
    ];
    for status in refused {
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().starts_with("this server does not offer "), "{status}");
    }
}

#[tokio::test]
async fn the_model_is_described_with_its_limits() {
    let harness = start(settings()).await;
    let mut service = harness.service();
    let named = v1::GetModelRequest { adapter: "tldr".to_owned() };
    let model = service.get_model(named).await.unwrap().into_inner();
    assert_eq!((model.name.as_str(), model.version.as_str()), ("fake", "v1"));
    assert_eq!(model.suffix_attention, v1::SuffixAttention::Causal as i32);
    assert_eq!((model.max_item_bytes, model.max_batch_items), (64 << 10, 8));
    assert_eq!(model.max_unfinished_items, 8);
    assert_eq!(model.max_timeout.unwrap().seconds, 60);

    let other = v1::GetModelRequest { adapter: "other".to_owned() };
    let status = service.get_model(other).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.get_error_details().resource_info().unwrap().resource_name, "adapter");
}

#[tokio::test]
async fn texts_are_tokenised_or_refused_by_field() {
    let harness = start(settings()).await;
    let mut service = harness.service();
    let ask = |text: Bytes| v1::TokenizeRequest { text, adapter: String::new() };
    let tokens = service.tokenize(ask(Bytes::from_static(b"ab"))).await.unwrap().into_inner();
    assert_eq!((tokens.id, tokens.start, tokens.end), (vec![97, 98], vec![0, 1], vec![1, 2]));
    assert_eq!(tokens.version, "v1");
    for bad in [Bytes::from_static(b"a\xff"), vec![b'a'; 33 << 10].into()] {
        let status = service.tokenize(ask(bad)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "text");
    }
    let status = service.tokenize(ask(Bytes::from_static(b"panic"))).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(!status.message().contains("as the text says"));
    service.tokenize(ask(Bytes::from_static(b"still here"))).await.unwrap();
}

#[tokio::test]
async fn a_bound_server_serves_over_tcp_until_told_to_stop() {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let settings = ServerSettings { listen, ..settings() };
    let server = Server::bind(settings.clone()).await.unwrap();
    let address = server.local_addr();
    assert_ne!(address.port(), 0);

    let taken = ServerSettings { listen: address, ..settings };
    let error = Server::bind(taken).await.unwrap_err();
    assert!(matches!(error, ServeError::Bind { address: a, .. } if a == address));

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let scorer: Arc<dyn Scorer> = Fake::new();
    let load = ready(Ok::<_, Infallible>(scorer));
    let running = tokio::spawn(server.run(load, async move { stopped.await.unwrap() }));
    let client = Client::connect(format!("http://{address}")).await.unwrap();
    assert_eq!(client.score(request("tokens 7")).await.unwrap().tokens.len(), 7);
    stop.send(()).unwrap();
    assert_eq!(running.await.unwrap().unwrap(), Drained::Complete);
}
