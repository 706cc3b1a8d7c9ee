mod observe;
mod signals;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Error, Result};
use sleuth_server::{
    AdminPort, Drained, Hooks, Pages, ReplaceFilter, Server, ServerSettings, Stage,
};
use sleuth_service::{ScoreService, Scorer, Swap};
use sleuth_telemetry::LogFilter;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use self::observe::Observing;
use self::signals::Signals;
use super::runtime;
use crate::arguments::ServeArguments;
use crate::compose;
use crate::settings::{self, Settings};

/// How long the device may take to finish its last batch.
const ENGINE_GRACE: Duration = Duration::from_secs(10);
/// As shells have it for what a signal ended.
const ENDED_AT_ONCE: u8 = 130;

pub(super) fn run(arguments: &ServeArguments) -> Result<ExitCode> {
    let settings = settings::resolve(arguments.config.as_deref(), &arguments.flags)?.settings;
    let guard = sleuth_telemetry::init(&settings.log)?;
    let runtime = runtime()?;
    let ended = runtime.block_on(serve(settings, guard.filter()));
    // What still loads or decodes is not waited for.
    runtime.shutdown_background();
    ended
}

async fn serve(settings: Settings, filter: LogFilter) -> Result<ExitCode> {
    let signals = Signals::new()?;
    let observing = Observing::start(&settings.observe)?;
    let observer = observing.observer.clone();
    let server = Server::bind(ServerSettings { observer, ..settings.server.clone() }).await?;
    let admin = match settings.admin_listen {
        Some(address) => Some(AdminPort::bind(address).await?),
        None => None,
    };
    say(&format!("listening on {}", server.local_addr()))?;
    if let Some(admin) = &admin {
        say(&format!("admin on {}", admin.local_addr()))?;
    }
    let (stage, pages) = (Stage::default(), Pages::default());
    let swap = Arc::<OnceLock<Swap>>::default();
    let hooks = Hooks {
        stage: stage.clone(),
        replace_filter: Some(replace(filter)),
        swap: Arc::clone(&swap),
    };
    let reloader = server.reloader();
    let loaded = Arc::<OnceLock<ScoreService>>::default();
    let composing = load(settings, Arc::clone(&loaded), swap);
    let (measured, shown) = (observing.clone(), pages.clone());
    let load = async move {
        let service = composing.await?;
        measured.mount(&shown, &service);
        anyhow::Ok(Arc::new(service) as Arc<dyn Scorer>)
    };

    let drained = tokio::select! {
        drained = server.with_hooks(hooks).run(load, signals.first()) => drained?,
        failed = answer(admin, stage.clone(), pages) => return Err(failed),
        failed = announce(stage) => return Err(failed),
        never = signals.on_hang_up(|| reloader.reload()) => match never {},
        () = signals.second() => {
            tracing::warn!("ending at once: unfinished items are given up");
            return Ok(ExitCode::from(ENDED_AT_ONCE));
        }
    };
    if let Some(service) = loaded.get() {
        service.registry().shutdown(ENGINE_GRACE).await;
        observing.shutdown().await;
        let scored: u64 = service.registry().stats().iter().map(|v| v.engine.scored).sum();
        tracing::info!(?drained, scored, stats = ?service.stats(), "drained");
    }
    Ok(match drained {
        Drained::Complete => ExitCode::SUCCESS,
        Drained::CutOff { .. } => ExitCode::FAILURE,
    })
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

/// Answers probes for as long as the server lives; ends in failure only.
async fn answer(admin: Option<AdminPort>, stage: Stage, pages: Pages) -> Error {
    match admin {
        Some(admin) => match admin.run(stage, pages).await {
            Ok(()) => Error::msg("the admin port ended"),
            Err(error) => error.into(),
        },
        None => std::future::pending().await,
    }
}

/// Says when items are taken, for scripts that start a server and wait.
async fn announce(stage: Stage) -> Error {
    stage.serving().await;
    match say("ready") {
        Ok(()) => std::future::pending().await,
        Err(error) => error,
    }
}

fn replace(filter: LogFilter) -> ReplaceFilter {
    Arc::new(move |directives| filter.replace(directives).map_err(|error| error.to_string()))
}

fn say(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
