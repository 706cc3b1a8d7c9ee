use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sleuth_server::{Metrics, Observer, serve_metrics};
use sleuth_service::ScoreService;
use sleuth_telemetry::traces::{TraceSettings, Tracer};
use tokio::net::TcpListener;

use crate::arguments::ObserveArguments;
use crate::baseline;

/// How long the last traces may take to be sent.
const TRACE_GRACE: Duration = Duration::from_secs(5);

/// What a server tells of itself, while it runs.
pub(super) struct Observing {
    tracer: Tracer,
    pub(super) observer: Observer,
}

// === impl Observing ===

impl Observing {
    /// Within a tokio runtime.
    pub(super) fn start(arguments: &ObserveArguments) -> Result<Self> {
        let tracer = match &arguments.otlp_endpoint {
            None => Tracer::default(),
            Some(endpoint) => Tracer::start(&TraceSettings {
                sample_ratio: arguments.trace_sample,
                service_name: arguments.otlp_service_name.clone(),
                attributes: arguments.otlp_attribute.clone(),
                ..TraceSettings::to(endpoint.as_str())
            })?,
        };
        let observer = Observer::new(tracer.clone(), arguments.metrics_tenants);
        Ok(Self { tracer, observer })
    }

    /// Serves metrics, if they are asked for.
    pub(super) async fn listen(
        &self,
        arguments: &ObserveArguments,
        service: &ScoreService,
    ) -> Result<()> {
        let baseline = arguments.reward_baseline.as_deref().map(baseline::read).transpose()?;
        let Some(address) = arguments.metrics_listen else {
            ensure!(baseline.is_none(), "--reward-baseline needs --metrics-listen");
            return Ok(());
        };
        ensure!(address.ip().is_loopback(), "--metrics-listen {address} is not loopback");
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("--metrics-listen {address}"))?;
        writeln!(io::stdout(), "metrics on {}", listener.local_addr()?)?;
        let metrics = Arc::new(Metrics::new(service.clone(), &self.observer, baseline));
        tokio::spawn(serve_metrics(listener, metrics));
        Ok(())
    }

    /// Sends what is left of traces.
    pub(super) async fn shutdown(self) {
        if !self.tracer.shutdown(TRACE_GRACE).await {
            tracing::warn!("not all traces were sent");
        }
    }
}
