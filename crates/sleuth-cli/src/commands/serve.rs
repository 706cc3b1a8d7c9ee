use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use sleuth_server::{Drained, Server, ServerSettings};
use sleuth_service::{AdmissionSettings, ServiceSettings, TenantLimits};
use sleuth_telemetry::{LogFormat, LogSettings};
use tokio::signal;

use super::runtime;
use crate::arguments::{AdmissionArguments, ServeArguments};
use crate::{compose, environment};

/// How long the device may take to finish its last batch.
const ENGINE_GRACE: Duration = Duration::from_secs(10);

pub(super) fn run(arguments: &ServeArguments) -> Result<ExitCode> {
    let loopback = arguments.listen.ip().is_loopback();
    ensure!(
        loopback || arguments.insecure,
        "--listen {} is not loopback and the listener is plain; add --insecure if the network is trusted",
        arguments.listen
    );
    let format = if arguments.log_json { LogFormat::Json } else { LogFormat::Pretty };
    let filter = environment::log_filter("info");
    let _guard = sleuth_telemetry::init(&LogSettings { format, filter })?;
    runtime()?.block_on(serve(arguments))
}

async fn serve(arguments: &ServeArguments) -> Result<ExitCode> {
    let settings = ServerSettings {
        listen: arguments.listen,
        tenant_header: arguments.tenant_header.as_deref().map(str::to_ascii_lowercase),
        ..ServerSettings::default()
    };
    let (model, engine) = (&arguments.model, arguments.engine);
    let service = service_settings(arguments);
    let (builtin, memory) = (arguments.builtin, arguments.builtin.corrector_memory);
    let correctors =
        compose::correctors(model, engine, &arguments.endpoint, builtin, memory).await?;
    let composed = match arguments.simulated_device {
        None => compose::start(model, engine, service).await?,
        Some(device) => compose::start_simulated(model, engine, device, service).await?,
    };
    let engine = composed.engine.clone();
    let service = composed.service.with_corrections(correctors);
    let server = Server::bind(settings, Arc::new(service.clone())).await?;
    // For scripts that start a server on port 0 and wait until it can be asked.
    writeln!(io::stdout(), "listening on {}", server.local_addr())?;
    io::stdout().flush()?;
    let drained = server.run(stop()).await?;
    engine.shutdown(ENGINE_GRACE).await;
    let computed = engine.stats();
    tracing::info!(?drained, scored = computed.scored, stats = ?service.stats(), "drained");
    Ok(match drained {
        Drained::Complete => ExitCode::SUCCESS,
        Drained::CutOff { .. } => ExitCode::FAILURE,
    })
}

fn service_settings(arguments: &ServeArguments) -> ServiceSettings {
    let AdmissionArguments { max_wait, burst, tenant_items, tenant_share } = arguments.admission;
    let tenant = TenantLimits {
        max_items: tenant_items,
        device_share: tenant_share,
        ..TenantLimits::default()
    };
    ServiceSettings {
        admission: AdmissionSettings { max_wait, burst, tenant, ..AdmissionSettings::default() },
        image_store_bytes: arguments.image_store << 20,
        ..ServiceSettings::default()
    }
}

/// Ctrl-C, or SIGTERM as orchestrators send it.
async fn stop() {
    let interrupt = signal::ctrl_c();
    #[cfg(unix)]
    {
        match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    _ = interrupt => {}
                    _ = terminate.recv() => {}
                }
            }
            Err(_) => drop(interrupt.await),
        }
    }
    #[cfg(not(unix))]
    drop(interrupt.await);
}
