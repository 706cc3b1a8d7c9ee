//! Putting images.

use bytes::Bytes;
use sleuth_proto::v1;
use sleuth_proto::v1::put_image_request::Kind;
use sleuth_server::ServerSettings;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::harness::{Harness, settings, start};

fn header(data: &[u8], size_bytes: u64) -> Kind {
    let blake3 = Bytes::copy_from_slice(blake3::hash(data).as_bytes());
    Kind::Header(v1::ImageHeader { blake3, size_bytes })
}

fn chunk(data: &[u8]) -> Kind {
    Kind::Chunk(Bytes::copy_from_slice(data))
}

async fn put(harness: &Harness, kinds: Vec<Kind>) -> Result<v1::PutImageResponse, tonic::Status> {
    let messages = kinds.into_iter().map(|kind| v1::PutImageRequest { kind: Some(kind) });
    let reply = harness.service().put_image(tokio_stream::iter(messages)).await;
    reply.map(tonic::Response::into_inner)
}

async fn has(harness: &Harness, tenant: Option<&str>, data: &[&[u8]]) -> Vec<bool> {
    let blake3 = data.iter().map(|d| Bytes::copy_from_slice(blake3::hash(d).as_bytes())).collect();
    let mut request = Request::new(v1::HasImagesRequest { blake3 });
    if let Some(tenant) = tenant {
        request.metadata_mut().insert("x-tenant", tenant.parse().unwrap());
    }
    harness.service().has_images(request).await.unwrap().into_inner().present
}

#[tokio::test]
async fn an_image_is_put_in_chunks_and_once() {
    let harness = start(settings()).await;
    assert_eq!(has(&harness, None, &[b"an image"]).await, [false]);
    let kinds = || vec![header(b"an image", 8), chunk(b"an "), chunk(b""), chunk(b"image")];
    assert!(!put(&harness, kinds()).await.unwrap().was_present);
    assert!(put(&harness, kinds()).await.unwrap().was_present);
    assert!(put(&harness, vec![header(b"an image", 8)]).await.unwrap().was_present);
    assert_eq!(has(&harness, None, &[b"another", b"an image"]).await, [false, true]);
}

#[tokio::test]
async fn what_is_wrong_with_an_image_is_named() {
    let harness = start(settings()).await;
    let reversed = vec![chunk(b"x"), header(b"x", 1)];
    let short = Kind::Header(v1::ImageHeader { blake3: Bytes::from_static(b"x"), size_bytes: 1 });
    let cases = [
        (vec![], Code::InvalidArgument, "kind"),
        (reversed, Code::InvalidArgument, "kind"),
        (vec![header(b"x", 1), header(b"x", 1)], Code::InvalidArgument, "kind"),
        (vec![short], Code::InvalidArgument, "header.blake3"),
        (vec![header(b"x", 0)], Code::InvalidArgument, "header.size_bytes"),
        (vec![header(b"x", 65 << 10)], Code::InvalidArgument, "header.size_bytes"),
        (vec![header(b"xy", 1), chunk(b"xy")], Code::InvalidArgument, "header.blake3"),
        (vec![header(b"xy", 2), chunk(b"x")], Code::InvalidArgument, "header.blake3"),
        (vec![header(b"xy", 2), chunk(b"xz")], Code::InvalidArgument, "header.blake3"),
    ];
    for (kinds, code, field) in cases {
        let status = put(&harness, kinds).await.unwrap_err();
        let details = status.get_error_details();
        let named = details.bad_request().unwrap().field_violations[0].field.clone();
        assert_eq!((status.code(), named.as_str()), (code, field), "{status}");
    }
    let many = v1::HasImagesRequest { blake3: vec![Bytes::from(vec![0; 32]); 1025] };
    let status = harness.service().has_images(many).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_tenant_finds_its_own_images_only() {
    let tenant_header = Some("x-tenant".to_owned());
    let harness = start(ServerSettings { tenant_header, ..settings() }).await;
    let messages = [header(b"mine", 4), chunk(b"mine")];
    let messages = messages.map(|kind| v1::PutImageRequest { kind: Some(kind) });
    let mut request = Request::new(tokio_stream::iter(messages));
    request.metadata_mut().insert("x-tenant", "a".parse().unwrap());
    harness.service().put_image(request).await.unwrap();
    assert_eq!(has(&harness, Some("a"), &[b"mine"]).await, [true]);
    assert_eq!(has(&harness, Some("b"), &[b"mine"]).await, [false]);
    assert_eq!(has(&harness, None, &[b"mine"]).await, [false]);
}
