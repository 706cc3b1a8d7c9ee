//! Tokens, roles and tenants.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sleuth_core::ImageSource;
use sleuth_proto::v1;
use sleuth_proto::v1::admin_service_client::AdminServiceClient;
use sleuth_proto::v1::reward_service_client::RewardServiceClient;
use sleuth_server::{Hooks, NewToken, ServerSettings, TlsSettings};
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;
use tracing_subscriber::fmt::MakeWriter;

use crate::certificates::{Authority, Files};
use crate::harness::item;
use crate::running::{Running, settings, start, start_loading};

/// Sends a token with every call.
#[derive(Clone)]
struct Bearer(String);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value: MetadataValue<_> = format!("Bearer {}", self.0).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

type Service = RewardServiceClient<InterceptedService<Channel, Bearer>>;

fn entry(name: &str, tenant: &str, roles: &str, token: &NewToken) -> String {
    format!(
        "[[token]]\nname = \"{name}\"\ntenant = \"{tenant}\"\nroles = [{roles}]\nblake3 = \"{}\"\n",
        token.blake3
    )
}

fn with_credentials(files: &Files, text: &str) -> ServerSettings {
    let credentials = Some(files.write("callers.toml", text));
    ServerSettings { credentials, ..settings() }
}

async fn service(server: &Running, token: &NewToken) -> Service {
    let bearer = Bearer(token.token.reveal().to_owned());
    RewardServiceClient::with_interceptor(server.plain().await, bearer)
}

async fn score(service: &mut Service) -> Result<(), Status> {
    let items = vec![item("a", "a cat")];
    service.score_batch(v1::ScoreBatchRequest { items }).await.map(drop)
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().unwrap().reason.clone()
}

#[tokio::test]
async fn who_is_not_known_is_unauthenticated_and_who_may_not_is_denied() {
    let (files, scorer, reader) = (Files::new(), NewToken::generate(), NewToken::generate());
    let (scorer, reader, other) = (scorer.unwrap(), reader.unwrap(), NewToken::generate().unwrap());
    let text = entry("scorer", "a", "\"score\"", &scorer) + &entry("r", "b", "\"read\"", &reader);
    let server = start(with_credentials(&files, &text)).await;

    let mut nobody = RewardServiceClient::new(server.plain().await);
    let status = nobody.get_model(v1::GetModelRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::Unauthenticated, "TOKEN_MISSING".into()));
    let status = nobody.score_tokens(tokio_stream::pending()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "a stream is refused when it begins");
    let status = score(&mut service(&server, &other).await).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::Unauthenticated, "TOKEN_UNKNOWN".into()));

    score(&mut service(&server, &scorer).await).await.unwrap();
    let mut reads = service(&server, &reader).await;
    reads.get_model(v1::GetModelRequest::default()).await.unwrap();
    let status = score(&mut reads).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::PermissionDenied, "ROLE_MISSING".into()));
    assert_eq!(server.fake.started(), 1);

    // Load balancers have no tokens.
    let mut health = HealthClient::new(server.plain().await);
    health.check(HealthCheckRequest::default()).await.unwrap();
}

#[tokio::test]
async fn tenants_come_from_tokens_and_share_no_images() {
    let (files, a, b) =
        (Files::new(), NewToken::generate().unwrap(), NewToken::generate().unwrap());
    let text = entry("a", "a", "\"score\"", &a) + &entry("b", "b", "\"score\"", &b);
    let server = start(with_credentials(&files, &text)).await;
    let digest: bytes::Bytes = blake3::hash(b"an image").as_bytes().to_vec().into();
    let header = v1::ImageHeader { blake3: digest.clone(), size_bytes: 8 };
    let put = [
        v1::put_image_request::Kind::Header(header),
        v1::put_image_request::Kind::Chunk(bytes::Bytes::from_static(b"an image")),
    ];
    let messages = put.map(|kind| v1::PutImageRequest { kind: Some(kind) });
    let (mut of_a, mut of_b) = (service(&server, &a).await, service(&server, &b).await);
    of_a.put_image(tokio_stream::iter(messages)).await.unwrap();
    let asked = v1::HasImagesRequest { blake3: vec![digest] };
    assert_eq!(of_a.has_images(asked.clone()).await.unwrap().into_inner().present, [true]);
    assert_eq!(of_b.has_images(asked).await.unwrap().into_inner().present, [false]);
}

#[tokio::test]
async fn tokens_are_rotated_while_the_server_runs() {
    let (files, old, new) =
        (Files::new(), NewToken::generate().unwrap(), NewToken::generate().unwrap());
    let server = start(with_credentials(&files, &entry("t", "a", "\"score\"", &old))).await;
    let (mut with_old, mut with_new) = (service(&server, &old).await, service(&server, &new).await);
    score(&mut with_old).await.unwrap();
    files.write("callers.toml", &entry("t", "a", "\"score\"", &new));
    let mut turns = 0;
    while score(&mut with_new).await.is_err() {
        turns += 1;
        assert!(turns < 400, "the new token is never known");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(score(&mut with_old).await.unwrap_err().code(), Code::Unauthenticated);
    files.write("callers.toml", "[[token]]\nname = \"half");
    server.reloader.reload();
    tokio::time::sleep(Duration::from_millis(80)).await;
    score(&mut with_new).await.unwrap();
}

#[tokio::test]
async fn a_certificate_leads_to_its_tenant_and_a_bad_token_beside_it_does_not_help() {
    let (authority, files, token) = (Authority::new(), Files::new(), NewToken::generate().unwrap());
    let (certificate, key) = files.write_leaf(&authority.issue("localhost"));
    let client_ca = Some(files.write("ca.crt", &authority.pem));
    let listed = "[[certificate]]\nname = \"t\"\nsan = \"trainer.internal\"\nroles = [\"score\"]\n";
    let settings = ServerSettings {
        tls: Some(TlsSettings { certificate, key, client_ca }),
        ..with_credentials(&files, listed)
    };
    let server = start(settings).await;
    let listed = server.tls(&authority.pem, Some(&authority.issue("trainer.internal"))).await;
    let listed = listed.unwrap();
    let mut known = RewardServiceClient::new(listed.clone());
    known.get_model(v1::GetModelRequest::default()).await.unwrap();
    let bearer = Bearer(token.token.reveal().to_owned());
    let mut both = RewardServiceClient::with_interceptor(listed, bearer);
    assert_eq!(score(&mut both).await.unwrap_err().code(), Code::Unauthenticated);
    let other = server.tls(&authority.pem, Some(&authority.issue("other.internal"))).await;
    let mut unknown = RewardServiceClient::new(other.unwrap());
    let status = unknown.get_model(v1::GetModelRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

fn hooks(seen: &Arc<Mutex<Vec<String>>>) -> Hooks {
    let seen = Arc::clone(seen);
    let replace = move |filter: &str| {
        let mut seen = seen.lock().unwrap();
        if filter == "bad" {
            return Err("is no filter".to_owned());
        }
        seen.push(filter.to_owned());
        Ok(format!("filter {}", seen.len() - 1))
    };
    Hooks { replace_filter: Some(Arc::new(replace)), ..Hooks::default() }
}

#[tokio::test]
async fn only_admins_set_the_log_filter() {
    let (files, admin, scorer) =
        (Files::new(), NewToken::generate().unwrap(), NewToken::generate().unwrap());
    let text = entry("op", "ops", "\"admin\"", &admin) + &entry("s", "s", "\"score\"", &scorer);
    let seen = Arc::default();
    // An operator can also while the model loads.
    let server = start_loading(with_credentials(&files, &text), hooks(&seen)).await;
    let set = |token: &NewToken, filter: &str| {
        let bearer = Bearer(token.token.reveal().to_owned());
        let filter = filter.to_owned();
        let channel = server.plain();
        async move {
            let mut client = AdminServiceClient::with_interceptor(channel.await, bearer);
            client.set_log_filter(v1::SetLogFilterRequest { filter }).await
        }
    };
    assert_eq!(set(&scorer, "debug").await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(set(&admin, "bad").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(set(&admin, "").await.unwrap_err().code(), Code::InvalidArgument);
    let previous = set(&admin, "debug").await.unwrap().into_inner().previous_filter;
    assert_eq!(
        (previous.as_str(), seen.lock().unwrap().as_slice()),
        ("filter 0", &["debug".to_owned()][..])
    );
    assert_eq!(
        score(&mut service(&server, &admin).await).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

/// Everything that is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn neither_tokens_nor_texts_nor_images_are_logged_at_any_level() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    // While there is but one, tests on other threads switch off for all what they do not log.
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    let (files, good, bad) =
        (Files::new(), NewToken::generate().unwrap(), NewToken::generate().unwrap());
    let server = start(with_credentials(&files, &entry("good", "a", "\"score\"", &good))).await;
    let mut scored = item("a", "the quokka sleeps");
    let context = scored.context.as_mut().unwrap();
    context.prompt = Some(bytes::Bytes::from_static(b"what does the wombat do"));
    let request = v1::ScoreBatchRequest { items: vec![scored] };
    service(&server, &good).await.score_batch(request.clone()).await.unwrap();
    let refused = service(&server, &bad).await.score_batch(request).await.unwrap_err();
    drop(server);
    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(text.contains("a call is refused") && text.contains("item scored"), "{text}");
    assert!(text.contains("TRACE"), "everything is captured");
    let secrets = [good.token.reveal(), bad.token.reveal(), "quokka", "wombat"];
    for secret in secrets {
        assert!(!text.contains(secret), "{secret} is logged");
        assert!(!format!("{refused:?}").contains(secret), "{secret} is in the error");
        let list = format!("{:?}", secret.as_bytes());
        assert!(!text.contains(list.trim_matches(['[', ']'])), "{secret} is logged as numbers");
    }
    assert!(matches!(crate::harness::request("x").context.image, ImageSource::Data(_)));
}
