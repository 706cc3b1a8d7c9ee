//! Starts an engine where a model computes.

use anyhow::{Context, Result, ensure};
use sleuth_engine::{BackboneWorker, Devices, Engine, EngineSettings, PoolSettings, StartError};
use sleuth_models::cpu::Workspace;
use sleuth_models::{Backbone, LoadError, ModelFolder, RewardFolder};

use crate::arguments::{DeviceKind, EngineArguments};

/// An engine over the folder's model; on GPUs `version` becomes that of what they compute.
pub(super) async fn start(
    opened: RewardFolder,
    version: &mut String,
    engine: EngineArguments,
    pool: PoolSettings,
) -> Result<Engine> {
    let kv = engine.kv.into();
    match opened {
        RewardFolder::PaliGemma(opened) => {
            if let Some(devices) = gpus(&opened, engine)? {
                *version = opened.version_on(devices.choice().model);
                return Ok(start_on(devices, opened, version).await?);
            }
            let version = version.clone();
            start_workers(move || workers(opened.load_cpu(kv)?, &version, pool)).await
        }
        RewardFolder::Mllama(opened) => {
            let asked = engine.on.device == DeviceKind::Cuda;
            ensure!(!asked, "--device cuda: a model of this architecture computes on the CPU");
            let version = version.clone();
            start_workers(move || workers(opened.load_cpu(kv)?, &version, pool)).await
        }
    }
}

async fn start_workers<B: Backbone<Space = Workspace>>(
    load: impl FnOnce() -> Result<Vec<BackboneWorker<B>>, LoadError> + Send + 'static,
) -> Result<Engine> {
    Ok(Engine::start(load, EngineSettings::default()).await?)
}

fn workers<B: Backbone<Space = Workspace>>(
    model: B,
    version: &str,
    pool: PoolSettings,
) -> Result<Vec<BackboneWorker<B>>, LoadError> {
    BackboneWorker::pool(model, version, pool).map_err(LoadError::Threads)
}

/// The GPUs that shall compute; `None` where the CPU does.
fn gpus(opened: &ModelFolder, engine: EngineArguments) -> Result<Option<Devices>> {
    if engine.on.device == DeviceKind::Cpu {
        return Ok(None);
    }
    let devices = Devices::find(opened, engine.on.choice(engine.kv.into()))
        .context("--gpus, --memory-share")?;
    if devices.count() > 0 {
        return Ok(Some(devices));
    }
    let why = devices.why_none();
    ensure!(engine.on.device == DeviceKind::Auto, "--device cuda: {why}");
    // A build for the CPU alone has nothing to tell.
    if cfg!(feature = "cuda") {
        tracing::warn!(why, "no GPU computes, the CPU does");
    }
    Ok(None)
}

#[cfg(feature = "cuda")]
async fn start_on(
    devices: Devices,
    opened: ModelFolder,
    version: &str,
) -> Result<Engine, StartError> {
    let version = version.to_owned();
    let load = move || devices.load(&opened, &version);
    Engine::start(load, EngineSettings::default()).await
}

#[cfg(not(feature = "cuda"))]
#[expect(clippy::unused_async, reason = "as with the feature, which no device is found without")]
async fn start_on(devices: Devices, _: ModelFolder, _: &str) -> Result<Engine, StartError> {
    Err(StartError::Model(devices.why_none().into()))
}
