//! Versions for a running server: model and adapter folders, loaded beside what serves.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::anyhow;
use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_models::{LoadOptions, RewardFolder};
use sleuth_service::{BoxFuture, LoadVersion, Unproven};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::arguments::{EngineArguments, ModelArguments};
use crate::compose::Loaded;
use crate::{compose, memory};

/// Loads folders as the server's own model was loaded.
#[derive(Debug)]
pub(crate) struct Folders {
    engine: EngineArguments,
    tau: f64,
    /// The folder whose weights each version runs on.
    bases: Mutex<HashMap<String, PathBuf>>,
}

// === impl Folders ===

impl Folders {
    /// For a server whose first version came from `folder`.
    pub(crate) fn new(engine: EngineArguments, tau: f64, version: &str, folder: PathBuf) -> Self {
        let bases = Mutex::new(HashMap::from([(version.to_owned(), folder)]));
        Self { engine, tau, bases }
    }

    async fn load(&self, model: ModelArguments, name: Option<String>) -> Result<Unproven, Failure> {
        // Gigabytes are read and digested: not on a thread that serves.
        let (engine, handle) = (self.engine, Handle::current());
        let loading = spawn_blocking(move || handle.block_on(load_beside(model, engine)));
        let (folder, mut loaded) = loading.await.map_err(|e| unusable(&e.into()))??;
        if name.is_some() {
            loaded.card.adapter = name;
        }
        let version = loaded.card.version.clone();
        self.bases.lock().unwrap_or_else(PoisonError::into_inner).insert(version, folder);
        Ok(loaded.unproven())
    }

    fn base(&self, version: &str) -> Option<PathBuf> {
        self.bases.lock().unwrap_or_else(PoisonError::into_inner).get(version).cloned()
    }
}

impl LoadVersion for Folders {
    fn weights(&self, folder: PathBuf) -> BoxFuture<'_, Result<Unproven, Failure>> {
        let model =
            ModelArguments { model: Some(folder), adapter: None, no_adapter: false, tau: self.tau };
        Box::pin(self.load(model, None))
    }

    fn adapter(
        &self,
        over: &str,
        name: String,
        folder: PathBuf,
    ) -> BoxFuture<'_, Result<Unproven, Failure>> {
        let base = self.base(over);
        Box::pin(async move {
            let unknown = || unusable(&anyhow!("the folder of the weights that run is not known"));
            let model = ModelArguments {
                model: Some(base.ok_or_else(unknown)?),
                adapter: Some(folder),
                no_adapter: false,
                tau: self.tau,
            };
            self.load(model, Some(name)).await
        })
    }
}

async fn load_beside(
    model: ModelArguments,
    engine: EngineArguments,
) -> Result<(PathBuf, Loaded), Failure> {
    let folder = compose::model_folder(&model).map_err(|e| unusable(&e))?;
    let options = compose::load_options(&model, &folder).map_err(|e| unusable(&e))?;
    room_for(&folder, &options)?;
    let loaded = compose::load(&model, engine).await.map_err(|e| unusable(&e))?;
    Ok((folder, loaded))
}

/// Nothing is loaded that the machine has no memory for: what serves must not fall for it.
fn room_for(folder: &Path, options: &LoadOptions) -> Result<(), Failure> {
    let needed =
        RewardFolder::open(folder, options).map_err(|e| unusable(&e.into()))?.weight_bytes();
    match memory::available() {
        Some(left) if needed > left => {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            let detail = format!(
                "the weights take {} MiB in f32, and {} MiB are to be had; unload an adapter or wait \
                 until the version before is let go",
                mib(needed),
                mib(left)
            );
            Err(Failure::new(ErrorClass::Quota, Reason::MEMORY_SHORT, detail).at("path"))
        }
        _ => Ok(()),
    }
}

/// Operators learn what is wrong with a folder of theirs.
fn unusable(error: &anyhow::Error) -> Failure {
    let detail = format!("{error:#}");
    Failure::new(ErrorClass::InvalidRequest, Reason::MODEL_UNUSABLE, detail).at("path")
}
