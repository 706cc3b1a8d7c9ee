use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use sleuth_router::{Router, RouterMetrics, replicas_page};
use sleuth_server::{Baseline, Metrics, Observer, Pages, metrics_router};
use sleuth_service::ScoreService;
use sleuth_telemetry::traces::{TraceSettings, Tracer};

use crate::baseline;
use crate::settings::ObserveSettings;

/// How long the last traces may take to be sent.
const TRACE_GRACE: Duration = Duration::from_secs(5);

/// What a server tells of itself, while it runs.
#[derive(Clone)]
pub(in crate::commands) struct Observing {
    tracer: Tracer,
    pub(super) observer: Observer,
    baseline: Option<Baseline>,
}

// === impl Observing ===

impl Observing {
    /// Within a tokio runtime.
    pub(in crate::commands) fn start(settings: &ObserveSettings) -> Result<Self> {
        let tracer = match &settings.endpoint {
            None => Tracer::default(),
            Some(endpoint) => Tracer::start(&TraceSettings {
                sample_ratio: settings.sample,
                service_name: settings.service_name.clone(),
                attributes: settings.attributes.clone(),
                ..TraceSettings::to(endpoint.as_str())
            })?,
        };
        let observer = Observer::new(tracer.clone(), settings.tenants);
        let baseline = settings.baseline.as_deref().map(baseline::read).transpose()?;
        Ok(Self { tracer, observer, baseline })
    }

    /// Serves metrics beside the probes, once there is something to measure.
    pub(in crate::commands) fn mount(self, pages: &Pages, service: &ScoreService) {
        let metrics = Metrics::new(service.clone(), &self.observer, self.baseline);
        pages.mount(metrics_router(Arc::new(metrics)));
    }

    /// The same for a router, with the page that `sleuth top` reads.
    pub(in crate::commands) fn mount_router(self, pages: &Pages, router: &Router) {
        let metrics = Metrics::of(Box::new(RouterMetrics::new(router.clone())), &self.observer);
        pages.mount(metrics_router(Arc::new(metrics)).merge(replicas_page(router.clone())));
    }

    /// Sends what is left of traces.
    pub(in crate::commands) async fn shutdown(self) {
        if !self.tracer.shutdown(TRACE_GRACE).await {
            tracing::warn!("not all traces were sent");
        }
    }
}
