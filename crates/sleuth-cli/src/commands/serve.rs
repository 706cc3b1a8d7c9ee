use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use sleuth_service::{ScoreService, Scorer, Swap};
use sleuth_telemetry::LogFilter;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::edge::{Edge, exit_code};
use super::runtime;
use crate::arguments::ServeArguments;
use crate::compose;
use crate::settings::{self, Settings};

/// How long the device may take to finish its last batch.
const ENGINE_GRACE: Duration = Duration::from_secs(10);

pub(super) fn run(arguments: &ServeArguments) -> Result<ExitCode> {
    let settings = settings::resolve(arguments.config.as_deref(), &arguments.flags.0)?.settings;
    let guard = sleuth_telemetry::init(&settings.log)?;
    let runtime = runtime()?;
    let ended = runtime.block_on(serve(settings, guard.filter()));
    // What still loads or decodes is not waited for.
    runtime.shutdown_background();
    ended
}

async fn serve(settings: Settings, filter: LogFilter) -> Result<ExitCode> {
    let edge = Edge::bind(&settings, filter).await?;
    let (observing, pages) = (edge.observing.clone(), edge.pages.clone());
    let swap = Arc::<OnceLock<Swap>>::default();
    let loaded = Arc::<OnceLock<ScoreService>>::default();
    let composing = load(settings, Arc::clone(&loaded), Arc::clone(&swap));
    let measured = observing.clone();
    let load = async move {
        let service = composing.await?;
        measured.mount(&pages, &service);
        Ok(Arc::new(service) as Arc<dyn Scorer>)
    };
    let drained = Box::pin(edge.run(load, swap)).await?;
    if let (Some(drained), Some(service)) = (&drained, loaded.get()) {
        service.registry().shutdown(ENGINE_GRACE).await;
        observing.shutdown().await;
        let scored: u64 = service.registry().stats().iter().map(|v| v.engine.scored).sum();
        tracing::info!(?drained, scored, stats = ?service.stats(), "drained");
    }
    Ok(exit_code(drained))
}

/// Loads on a thread that may block, while connections are taken already.
async fn load(
    settings: Settings,
    loaded: Arc<OnceLock<ScoreService>>,
    swap: Arc<OnceLock<Swap>>,
) -> Result<ScoreService> {
    let handle = Handle::current();
    let composed = spawn_blocking(move || handle.block_on(compose(settings)));
    let (service, exchange) = composed.await.context("loading panicked")??;
    // Only one load ever runs.
    let _ = loaded.set(service.clone());
    if let Some(exchange) = exchange {
        let _ = swap.set(exchange);
    }
    Ok(service)
}

/// The service, and what exchanges its versions, where it has a model.
async fn compose(settings: Settings) -> Result<(ScoreService, Option<Swap>)> {
    let Settings { model, engine, service, swap, simulated_device, builtin, endpoint, .. } =
        settings;
    let memory = builtin.corrector_memory;
    let correctors = compose::correctors(&model, engine, &endpoint, builtin, memory).await?;
    let (service, swap) = match simulated_device {
        None => {
            let (service, swap) = compose::start_serving(&model, engine, service, swap).await?;
            (service, Some(swap))
        }
        Some(device) => (compose::start_simulated(&model, engine, device, service).await?, None),
    };
    Ok((service.with_corrections(correctors), swap))
}
