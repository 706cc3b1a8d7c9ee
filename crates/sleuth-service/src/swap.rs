use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sleuth_core::{ErrorClass, Failure, Reason};
use tokio::sync::Mutex;

use crate::score::Inner;
use crate::{AdapterInfo, BoxFuture, LoadedModel, Proof, Registry, ScoreService, Unproven};

/// Loads model and adapter folders: the part of a swap that knows of files and devices.
pub trait LoadVersion: Send + Sync + 'static {
    /// A model folder with its own adapter, if it has one. The folder is absolute.
    fn weights(&self, folder: PathBuf) -> BoxFuture<'_, Result<Unproven, Failure>>;

    /// An adapter folder over the weights of the version `over`, under a name of its own.
    fn adapter(
        &self,
        over: &str,
        name: String,
        folder: PathBuf,
    ) -> BoxFuture<'_, Result<Unproven, Failure>>;
}

/// How versions are exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapSettings {
    /// Where model and adapter folders lie; without it none can be loaded.
    pub root: Option<PathBuf>,
    /// How long a version that was replaced stays for its groups.
    pub keep: Duration,
    /// Whether a version must have golden rewards.
    pub proof: Proof,
}

/// What came of loading weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swapped {
    /// The version that answers from now on.
    pub version: String,
    /// The one before.
    pub previous: String,
}

/// Exchanges the versions of a running service.
///
/// A new version is loaded and proven beside those that serve; then items that arrive go to it,
/// those that were taken stay where they are, and groups keep the version they began with. The old
/// version's engine, weights and caches go when nothing needs them. One load runs at a time.
#[derive(Clone)]
pub struct Swap {
    service: Arc<Inner>,
    loader: Arc<dyn LoadVersion>,
    settings: Arc<SwapSettings>,
    turn: Arc<Mutex<()>>,
}

/// Longest name of an adapter, in bytes.
const MAX_NAME: usize = 256;

/// How often versions that were replaced are looked at.
const SWEEP: Duration = Duration::from_secs(1);

// === impl Swap ===

impl Swap {
    /// For a running service.
    pub fn new(service: &ScoreService, loader: impl LoadVersion, settings: SwapSettings) -> Self {
        Self {
            service: Arc::clone(&service.shared),
            loader: Arc::new(loader),
            settings: Arc::new(settings),
            turn: Arc::default(),
        }
    }

    /// The adapters that items can name.
    pub fn adapters(&self) -> Vec<AdapterInfo> {
        self.registry().adapters()
    }

    /// Loads a model folder and makes it the default. `expected` is the version that its files must
    /// have, empty for any; `keep` is how long the version before may serve its groups on. Adapters
    /// that were loaded by name stay on the weights they came with.
    pub async fn load_weights(
        &self,
        path: &str,
        expected: &str,
        keep: Option<Duration>,
    ) -> Result<Swapped, Failure> {
        let folder = self.folder(path)?;
        let _turn = self.turn.lock().await;
        let loaded = self.loader.weights(folder).await?;
        let model = self.proven(loaded, expected).await?;
        let version = model.card().version.clone();
        let keep = keep.unwrap_or(self.settings.keep);
        let previous = self.registry().replace_default(Arc::new(model), keep);
        tracing::info!(version, previous, "another version is the default");
        self.let_go();
        Ok(Swapped { version, previous })
    }

    /// Loads an adapter folder, in the place of one of that name.
    pub async fn load_adapter(
        &self,
        name: &str,
        path: &str,
        expected: &str,
        make_default: bool,
    ) -> Result<AdapterInfo, Failure> {
        if name.is_empty() || name.len() > MAX_NAME {
            let detail = format!("has {} bytes; 1 to {MAX_NAME}", name.len());
            return Err(invalid(detail).at("name"));
        }
        let folder = self.folder(path)?;
        let _turn = self.turn.lock().await;
        let over = self.registry().default_model().card().version.clone();
        let loaded = self.loader.adapter(&over, name.to_owned(), folder).await?;
        let model = Arc::new(self.proven(loaded, expected).await?);
        let keep = self.settings.keep;
        self.registry().add_adapter(name, Arc::clone(&model), make_default, keep)?;
        tracing::info!(name, version = model.card().version, make_default, "an adapter was loaded");
        self.let_go();
        let all = self.adapters();
        all.into_iter().find(|adapter| adapter.name == name).ok_or_else(|| {
            let detail = "the adapter was unloaded meanwhile";
            Failure::new(ErrorClass::Unknown, Reason::ADAPTER_UNKNOWN, detail).at("name")
        })
    }

    /// Offers an adapter no more.
    pub fn unload_adapter(&self, name: &str) -> Result<(), Failure> {
        self.registry().remove_adapter(name, self.settings.keep)?;
        tracing::info!(name, "an adapter is offered no more");
        self.let_go();
        Ok(())
    }

    async fn proven(&self, loaded: Unproven, expected: &str) -> Result<LoadedModel, Failure> {
        let version = loaded.version();
        if !expected.is_empty() && expected != version {
            let detail = format!("the files have version {version}");
            return Err(invalid(detail).at("expected_version"));
        }
        loaded.prove(self.settings.proof).await.map_err(|disproof| {
            tracing::error!(%disproof, "a version was loaded and does not serve");
            Failure::new(ErrorClass::InvalidRequest, Reason::SELF_TEST_FAILED, disproof.to_string())
                .at("path")
        })
    }

    /// A folder under the model root: a path from outside must not lead elsewhere.
    fn folder(&self, path: &str) -> Result<PathBuf, Failure> {
        let Some(root) = &self.settings.root else {
            let detail = "the server has no model root (model.root); nothing can be loaded";
            return Err(Failure::new(ErrorClass::Unsupported, Reason::NOT_OFFERED, detail));
        };
        let relative = Path::new(path);
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if path.is_empty() || !relative.components().all(plain) {
            let detail = "is no plain path relative to the model root, such as `models/new`";
            return Err(invalid(detail).at("path"));
        }
        let unknown = || {
            let detail = "no such folder is under the model root";
            Failure::new(ErrorClass::Unknown, Reason::MODEL_UNKNOWN, detail).at("path")
        };
        // Links are followed, but only to what is under the root too.
        let root = root.canonicalize().map_err(|_| unknown())?;
        let folder = root.join(relative).canonicalize().map_err(|_| unknown())?;
        if folder.starts_with(&root) && folder.is_dir() { Ok(folder) } else { Err(unknown()) }
    }

    /// Frees what was replaced once nothing needs it, also where no item arrives any more.
    fn let_go(&self) {
        let service = Arc::downgrade(&self.service);
        tokio::spawn(async move {
            while service.upgrade().is_some_and(|service| !service.registry.sweep()) {
                tokio::time::sleep(SWEEP).await;
            }
        });
    }

    fn registry(&self) -> &Registry {
        &self.service.registry
    }
}

fn invalid(detail: impl Into<String>) -> Failure {
    Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_INVALID, detail)
}

impl fmt::Debug for Swap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swap").field("settings", &self.settings).finish_non_exhaustive()
    }
}

// === impl SwapSettings ===

impl Default for SwapSettings {
    /// No root, ten minutes, proofs where there are golden rewards.
    fn default() -> Self {
        Self { root: None, keep: Duration::from_mins(10), proof: Proof::WhereThere }
    }
}

#[cfg(test)]
mod tests;
