//! A collector of traces that keeps what it gets, for tests and to look at.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span as WireSpan;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// An OTLP/gRPC receiver on a port of its own; it ends with the test's runtime.
#[derive(Clone, Debug)]
pub struct Receiver {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

/// A span as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// What it names.
    pub name: String,
    /// Its trace.
    pub trace_id: Vec<u8>,
    /// Itself.
    pub span_id: Vec<u8>,
    /// Its parent; empty for a root.
    pub parent_id: Vec<u8>,
    /// `tracestate`.
    pub state: String,
    /// Start and end, in nanoseconds since 1970.
    pub time: (u64, u64),
    /// Attributes as text.
    pub attributes: BTreeMap<String, String>,
    /// Attributes of the resource, as text.
    pub resource: BTreeMap<String, String>,
    /// Traces and spans that it links.
    pub links: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether its status is an error.
    pub is_error: bool,
}

// === impl Receiver ===

impl Receiver {
    /// Listens on loopback.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let receiver = Self { address: listener.local_addr()?, spans: Arc::default() };
        let service = TraceServiceServer::new(receiver.clone());
        let router = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(receiver)
    }

    /// Where to send traces.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has arrived.
    pub fn spans(&self) -> Vec<Span> {
        self.lock().clone()
    }

    /// What has arrived since the last call.
    pub fn take(&self) -> Vec<Span> {
        std::mem::take(&mut *self.lock())
    }

    /// Waits until what arrived is enough, at most ten seconds; says whether it was.
    pub async fn until(&self, enough: impl Fn(&[Span]) -> bool) -> bool {
        for _ in 0..1000 {
            if enough(&self.lock()) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Span>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for group in request.into_inner().resource_spans {
            let resource = group.resource.map(|r| texts(r.attributes)).unwrap_or_default();
            let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.lock().extend(spans.map(|span| Span::of(span, &resource)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

// === impl Span ===

impl Span {
    /// Whether `self` is a child of `parent`.
    pub fn is_child_of(&self, parent: &Self) -> bool {
        self.parent_id == parent.span_id && self.trace_id == parent.trace_id
    }

    /// Whether `self` links `other`.
    pub fn has_link_to(&self, other: &Self) -> bool {
        self.links.iter().any(|(t, s)| *t == other.trace_id && *s == other.span_id)
    }

    fn of(wire: WireSpan, resource: &BTreeMap<String, String>) -> Self {
        Self {
            name: wire.name,
            trace_id: wire.trace_id,
            span_id: wire.span_id,
            parent_id: wire.parent_span_id,
            state: wire.trace_state,
            time: (wire.start_time_unix_nano, wire.end_time_unix_nano),
            attributes: texts(wire.attributes),
            resource: resource.clone(),
            links: wire.links.into_iter().map(|link| (link.trace_id, link.span_id)).collect(),
            is_error: wire.status.is_some_and(|status| status.code() == StatusCode::Error),
        }
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    attributes.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        other => format!("{other:?}"),
    }
}
