use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use super::adapter::Adapter;
use super::names::canonical_name;
use crate::LoadError;
use safetensors::Dtype;

/// The tensors of a model folder under canonical names, mapped into memory, with an adapter merged
/// on the way out.
pub struct Checkpoint {
    files: Vec<PathBuf>,
    mapped: MmapedSafetensors,
    /// Canonical name to the name in the file.
    names: BTreeMap<String, String>,
    adapter: Option<(Adapter, f64)>,
}

// === impl Checkpoint ===

impl Checkpoint {
    const SINGLE: &'static str = "model.safetensors";
    const INDEX: &'static str = "model.safetensors.index.json";

    /// Maps `model.safetensors`, or all shards that `model.safetensors.index.json` names.
    pub fn open(folder: &Path) -> Result<Self, LoadError> {
        let files = Self::files_of(folder)?;
        for path in &files {
            check_header(path)?;
        }
        // SAFETY: the files are read only and, as for every mapped checkpoint, must not be
        // truncated by others while mapped; documented in README, "Model folders".
        #[expect(unsafe_code, reason = "mapping a file is the only way not to copy gigabytes")]
        let mapped = unsafe { MmapedSafetensors::multi(&files) }
            .map_err(|e| LoadError::malformed(folder, e))?;
        let mut names = BTreeMap::new();
        for (name, _) in mapped.tensors() {
            if let Some(other) = names.insert(canonical_name(&name), name.clone()) {
                let problem = format!("tensors `{other}` and `{name}` are the same parameter");
                return Err(LoadError::malformed(folder, problem));
            }
        }
        Ok(Self { files, mapped, names, adapter: None })
    }

    /// Merges `adapter` into every tensor it adapts, its deltas times `tau`.
    pub fn with_adapter(mut self, adapter: Adapter, tau: f64) -> Result<Self, LoadError> {
        for module in adapter.modules() {
            let name = format!("{module}.weight");
            if !self.names.contains_key(&name) {
                let problem = format!("adapts `{module}`, which the model does not have");
                return Err(LoadError::malformed(adapter.folder(), problem));
            }
        }
        self.adapter = Some((adapter, tau));
        Ok(self)
    }

    /// The weight files, in order.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Every tensor: canonical name, stored type, shape.
    pub fn tensors(&self) -> Vec<(String, String, Vec<usize>)> {
        let views: BTreeMap<_, _> = self.mapped.tensors().into_iter().collect();
        let describe = |(canonical, name): (&String, &String)| {
            let view = views.get(name)?;
            Some((canonical.clone(), format!("{:?}", view.dtype()), view.shape().to_vec()))
        };
        self.names.iter().filter_map(describe).collect()
    }

    /// Elements of all tensors.
    pub fn numbers(&self) -> u64 {
        let tensors = self.tensors();
        tensors.iter().map(|(_, _, shape)| shape.iter().product::<usize>() as u64).sum()
    }

    /// Whether a tensor of that canonical name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Whether the adapter changes a tensor.
    pub(crate) fn is_adapted(&self, name: &str) -> bool {
        let module = name.strip_suffix(".weight");
        self.adapter.as_ref().is_some_and(|(a, _)| a.modules().any(|m| Some(m) == module))
    }

    /// A tensor as it lies in its file: type, shape, little-endian elements.
    pub(crate) fn stored(&self, name: &str) -> Result<(Dtype, Vec<usize>, &[u8]), LoadError> {
        let Some(stored) = self.names.get(name) else {
            return Err(LoadError::MissingTensor { name: name.to_owned() });
        };
        let view = self.mapped.get(stored)?;
        Ok((view.dtype(), view.shape().to_vec(), view.data()))
    }

    /// A tensor in f32, adapter merged; checked for shape and for non-finite values.
    pub fn tensor(&self, name: &str, shape: &Shape, device: &Device) -> Result<Tensor, LoadError> {
        let Some(stored) = self.names.get(name) else {
            return Err(LoadError::MissingTensor { name: name.to_owned() });
        };
        let tensor = self.mapped.load(stored, device)?.to_dtype(DType::F32)?;
        if tensor.shape() != shape {
            return Err(LoadError::Shape {
                name: name.to_owned(),
                expected: shape.dims().to_vec(),
                found: tensor.dims().to_vec(),
            });
        }
        let tensor = match (&self.adapter, name.strip_suffix(".weight")) {
            (Some((adapter, tau)), Some(module)) => adapter.merge(module, tensor, *tau)?,
            _ => tensor,
        };
        check_finite(name, &tensor)?;
        Ok(tensor)
    }

    /// Builds a module from these tensors, in f32. The error is the first that a tensor gave.
    pub fn build<T>(
        &self,
        device: &Device,
        build: impl FnOnce(&VarBuilder<'_>) -> candle_core::Result<T>,
    ) -> Result<T, LoadError> {
        self.build_as(device, DType::F32, build)
    }

    /// As [`Self::build`], with matrices in another type; vectors, such as norms and biases, are in
    /// f32.
    pub(crate) fn build_as<T>(
        &self,
        device: &Device,
        matrices: DType,
        build: impl FnOnce(&VarBuilder<'_>) -> candle_core::Result<T>,
    ) -> Result<T, LoadError> {
        let cause = Arc::new(Mutex::new(None));
        let backend = Backend { checkpoint: self, cause: Arc::clone(&cause) };
        let vb = VarBuilder::from_backend(Box::new(backend), matrices, device.clone());
        build(&vb).map_err(|e| {
            let first = cause.lock().ok().and_then(|mut cause| cause.take());
            first.unwrap_or(LoadError::Tensor(e))
        })
    }

    fn files_of(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
        let index = folder.join(Self::INDEX);
        if !index.exists() {
            let single = folder.join(Self::SINGLE);
            return if single.exists() {
                Ok(vec![single])
            } else {
                Err(LoadError::NoWeights { folder: folder.to_owned() })
            };
        }
        let mut files = Vec::new();
        for name in shard_names(&index)? {
            let path = folder.join(&name);
            if !path.exists() {
                return Err(LoadError::MissingShard { path, index: Self::INDEX.to_owned() });
            }
            files.push(path);
        }
        Ok(files)
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("files", &self.files)
            .field("tensors", &self.names.len())
            .finish_non_exhaustive()
    }
}

/// Candle's builder carries only its own errors; ours waits in `cause`.
struct Backend<'a> {
    checkpoint: &'a Checkpoint,
    cause: Arc<Mutex<Option<LoadError>>>,
}

impl SimpleBackend for Backend<'_> {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        matrices: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let tensor = self.checkpoint.tensor(name, &shape, device).map_err(|e| {
            let message = candle_core::Error::Msg(e.to_string());
            if let Ok(mut cause) = self.cause.lock() {
                cause.get_or_insert(e);
            }
            message
        })?;
        if tensor.rank() < 2 { Ok(tensor) } else { tensor.to_dtype(matrices) }
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        Err(candle_core::Error::Msg(format!("`{name}` was asked for without a shape")))
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.checkpoint.contains(name)
    }
}

/// Shard file names of an index, sorted; each must be a plain name inside the folder.
fn shard_names(index: &Path) -> Result<BTreeSet<String>, LoadError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = fs::read_to_string(index)
        .map_err(|source| LoadError::Read { path: index.to_owned(), source })?;
    let parsed: Index = serde_json::from_str(&text).map_err(|e| LoadError::malformed(index, e))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    match names.iter().find(|name| name.contains(['/', '\\']) || name.as_str() == "..") {
        Some(name) => {
            Err(LoadError::malformed(index, format!("shard `{name}` lies outside the folder")))
        }
        None => Ok(names),
    }
}

/// Refuses a file that is cut short before anything maps it.
pub(super) fn check_header(path: &Path) -> Result<(), LoadError> {
    let read = |source| LoadError::Read { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(read)?.len();
    if length < 8 {
        return Err(LoadError::malformed(path, "is shorter than a safetensors header"));
    }
    Ok(())
}

/// One pass over the tensor: a sum of `x · 0` is 0 where every `x` is finite and NaN otherwise.
fn check_finite(name: &str, tensor: &Tensor) -> Result<(), LoadError> {
    let sum = (tensor * 0.0)?.sum_all()?.to_scalar::<f32>()?;
    if sum == 0.0 { Ok(()) } else { Err(LoadError::NotFinite { name: name.to_owned() }) }
}
