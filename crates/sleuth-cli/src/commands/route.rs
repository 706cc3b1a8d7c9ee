use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use sleuth_router::discovery::{DiscoverySettings, Source};
use sleuth_router::{Router, RouterSettings};
use sleuth_service::Scorer;
use sleuth_telemetry::LogFilter;

use super::edge::{Edge, exit_code};
use super::runtime;
use crate::arguments::RouteArguments;
use crate::connect;
use crate::settings::{self, RouteSettings, Settings};

pub(super) fn run(arguments: &RouteArguments) -> Result<ExitCode> {
    let settings = settings::resolve(arguments.config.as_deref(), &arguments.flags.0)?.settings;
    let guard = sleuth_telemetry::init(&settings.log)?;
    let runtime = runtime()?;
    let ended = runtime.block_on(route(settings, guard.filter()));
    runtime.shutdown_background();
    ended
}

async fn route(settings: Settings, filter: LogFilter) -> Result<ExitCode> {
    let source = source(&settings.router)?;
    let router_settings = router_settings(&settings)?;
    let edge = Edge::bind(&settings, filter).await?;
    let (observing, pages) = (edge.observing.clone(), edge.pages.clone());
    let discovery = source.watch(DiscoverySettings::default());
    let router = Router::start(router_settings, discovery.membership());
    let served = router.clone();
    let measured = observing.clone();
    let load = async move {
        measured.mount_router(&pages, &served);
        // Until a replica answers there is nothing to describe and nobody to score.
        served.ready().await;
        Ok(Arc::new(served) as Arc<dyn Scorer>)
    };
    let drained = Box::pin(edge.run(load, Arc::default())).await?;
    observing.shutdown().await;
    if let Some(drained) = &drained {
        let counts = router.view().counts;
        tracing::info!(?drained, placed = ?counts.placed, retried = ?counts.retried, "drained");
    }
    Ok(exit_code(drained))
}

fn source(settings: &RouteSettings) -> Result<Source> {
    let text = settings.replicas.as_deref().context(
        "a router needs replicas: --replicas http://10.0.0.1:50051,http://10.0.0.2:50051, \
         dns://HOST:PORT or kubernetes://NAMESPACE/SERVICE:PORT",
    )?;
    let mut source: Source = text.parse().context("router.replicas (--replicas)")?;
    if let (Source::Kubernetes(kubernetes), Some(path)) = (&mut source, &settings.kubeconfig) {
        kubernetes.kubeconfig = Some(path.clone());
    }
    Ok(source)
}

fn router_settings(settings: &Settings) -> Result<RouterSettings> {
    Ok(RouterSettings {
        security: connect::security(&settings.router.security)?,
        max_timeout: settings.server.limits.max_timeout,
        image_store_bytes: settings.service.image_store_bytes,
        max_image_bytes: settings.service.max_image_bytes,
        ..settings.router.settings.clone()
    })
}
