//! What a replica and a router have in common: the listener, the admin port, signals, what is told.

mod observe;
mod signals;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::{Error, Result};
use sleuth_server::{
    AdminPort, BoundServer, Drained, Hooks, Pages, ReplaceFilter, Server, ServerSettings, Stage,
};
use sleuth_service::{Scorer, Swap};
use sleuth_telemetry::LogFilter;

pub(super) use self::observe::Observing;
use self::signals::Signals;
use crate::settings::Settings;

/// Listens, and runs what is served to its end.
pub(super) struct Edge {
    server: BoundServer,
    admin: Option<AdminPort>,
    signals: Signals,
    filter: LogFilter,
    pub(super) observing: Observing,
    pub(super) pages: Pages,
}

/// As shells have it for what a signal ended.
const ENDED_AT_ONCE: u8 = 130;

// === impl Edge ===

impl Edge {
    /// Listens, and says where.
    pub(super) async fn bind(settings: &Settings, filter: LogFilter) -> Result<Self> {
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
        if let Some(http) = server.http_addr() {
            say(&format!("http on {http}"))?;
        }
        Ok(Self { server, admin, signals, filter, observing, pages: Pages::default() })
    }

    /// Serves what `load` gives until a signal comes, and drains. `None` where a second signal
    /// ended it at once.
    pub(super) async fn run(
        self,
        load: impl Future<Output = Result<Arc<dyn Scorer>>> + Send,
        swap: Arc<OnceLock<Swap>>,
    ) -> Result<Option<Drained>> {
        let Self { server, admin, signals, filter, pages, .. } = self;
        let stage = Stage::default();
        let replace_filter = Some(replace(filter));
        let hooks = Hooks { stage: stage.clone(), replace_filter, swap };
        let reloader = server.reloader();
        tokio::select! {
            drained = server.with_hooks(hooks).run(load, signals.first()) => Ok(Some(drained?)),
            failed = answer(admin, stage.clone(), pages) => Err(failed),
            failed = announce(stage) => Err(failed),
            never = signals.on_hang_up(|| reloader.reload()) => match never {},
            () = signals.second() => {
                tracing::warn!("ending at once: unfinished items are given up");
                Ok(None)
            }
        }
    }
}

/// How a process ends that drained, or did not.
pub(super) fn exit_code(drained: Option<Drained>) -> ExitCode {
    match drained {
        None => ExitCode::from(ENDED_AT_ONCE),
        Some(Drained::Complete) => ExitCode::SUCCESS,
        Some(Drained::CutOff { .. }) => ExitCode::FAILURE,
    }
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
