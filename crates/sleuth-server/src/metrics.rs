//! What a replica tells Prometheus. `docs/observability.md` lists every name.

mod caches;
mod engine;
mod memory;
mod rewards;
mod service;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use sleuth_service::{RewardCounts, ScoreService, VersionStats};
use sleuth_telemetry::metrics::{
    self, CONTENT_TYPE as OPEN_METRICS, Canary, Collector, Family, Process, Registry, Spans,
};

use crate::Observer;

/// All metrics of a replica.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    _canary: Canary,
}

/// How the rewards of a version were distributed where all was well.
#[derive(Clone, Debug, PartialEq)]
pub struct Baseline {
    /// The version they are of.
    pub version: String,
    /// The rewards.
    pub rewards: RewardCounts,
}

/// Asks a service for its figures when somebody asks for them.
#[derive(Debug)]
struct Replica {
    service: ScoreService,
    baseline: Option<Baseline>,
}

/// A label of many metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    version: String,
    name: String,
    architecture: String,
    adapter: String,
}

/// `GET /metrics`, without authentication: metrics hold no texts.
pub fn metrics_router(metrics: Arc<Metrics>) -> Router {
    Router::new().route("/metrics", get(scrape)).with_state(metrics)
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(fmt::Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

// === impl Metrics ===

impl Metrics {
    /// Measures a service, and what [`Metrics::of`] does.
    pub fn new(service: ScoreService, observer: &Observer, baseline: Option<Baseline>) -> Self {
        Self::of(Box::new(Replica { service, baseline }), observer)
    }

    /// Measures what `scorer` tells, the items that `observer` watches, the process, and the
    /// runtime that this is called in.
    pub fn of(scorer: Box<dyn Collector>, observer: &Observer) -> Self {
        let mut registry = metrics::registry();
        observer.register(&mut registry);
        registry.register_collector(scorer);
        registry.register_collector(Box::new(Spans(observer.tracer.clone())));
        registry.register_collector(Box::new(Process::new()));
        let canary = Canary::start(&mut registry);
        Self { registry, _canary: canary }
    }

    /// All of them as OpenMetrics text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        metrics::text(&self.registry)
    }
}

// === impl Replica ===

impl Collector for Replica {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let versions = self.service.registry().stats();
        let service = self.service.stats();
        info(encoder, &versions)?;
        engine::encode(encoder, &versions)?;
        caches::encode(encoder, &versions, &service)?;
        memory::encode(encoder, &versions)?;
        rewards::encode(encoder, &versions, self.baseline.as_ref())?;
        service::encode(encoder, &service, &self.service.phases())
    }
}

fn info(encoder: &mut DescriptorEncoder<'_>, versions: &[VersionStats]) -> fmt::Result {
    let models = versions.iter().map(|stats| {
        let card = &stats.card;
        let model = Model {
            version: card.version.clone(),
            name: card.name.clone(),
            architecture: card.architecture.clone(),
            adapter: card.adapter.clone().unwrap_or_default(),
        };
        (model, 1_u64)
    });
    Family::new(encoder, "model_info", "The versions that answer; always 1.").gauges(models)
}

// === impl Version ===

impl Version {
    fn of(stats: &VersionStats) -> Self {
        Self { version: stats.card.version.clone() }
    }
}
