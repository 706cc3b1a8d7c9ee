//! A backbone folder as transformers loads it: the adapter's deltas merged times τ, no reward head.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Shape};
use half::{bf16, f16};
use safetensors::{Dtype, View};

use super::tensors::Checkpoint;
use crate::{BackboneFolder, LoadError, LoadOptions};

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Merged {
    /// Tensors in `model.safetensors`.
    pub tensors: usize,
    /// Of those, how many a delta was added to.
    pub merged: usize,
    /// Bytes of the tensors.
    pub bytes: u64,
    /// The files of the folder, by name.
    pub files: Vec<String>,
}

/// Files that say how texts and images are read, and how the model is run; copied as they are.
const COPIED: [&str; 11] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
];
const WEIGHTS: &str = "model.safetensors";
const HEADS: [&str; 2] = ["score.", "lm_head."];

/// Writes `folder` with the options' adapter merged to the new folder `out`, whole or not at all.
///
/// Every tensor keeps its stored type; one that the adapter does not change, and each with τ 0,
/// keeps its bits. Names are those of published checkpoints, which every version of transformers
/// reads. A tied language head is not written twice.
///
/// # Errors
/// As loading; [`LoadError::Exists`] where `out` is there; [`LoadError::Write`].
pub fn write_merged(folder: &Path, options: &LoadOptions, out: &Path) -> Result<Merged, LoadError> {
    if out.exists() {
        return Err(LoadError::Exists { path: out.to_owned() });
    }
    let opened = BackboneFolder::open(folder, options)?;
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let partial = out.with_file_name(format!(".{name}.{}.partial", std::process::id()));
    let written = fs::create_dir_all(&partial)
        .map_err(at(&partial))
        .and_then(|()| fill(&opened, folder, options, &partial))
        .and_then(|merged| fs::rename(&partial, out).map_err(at(out)).map(|()| merged));
    if written.is_err() {
        // What is left of a failed run is of no use; that it cannot be removed is no other error.
        let _ = fs::remove_dir_all(&partial);
    }
    written
}

fn fill(
    opened: &BackboneFolder,
    folder: &Path,
    options: &LoadOptions,
    partial: &Path,
) -> Result<Merged, LoadError> {
    let mut files = Vec::new();
    for name in COPIED {
        let from = folder.join(name);
        if from.exists() {
            fs::copy(&from, partial.join(name)).map_err(at(&from))?;
            files.push(name.to_owned());
        }
    }
    let cause = Mutex::new(None);
    let checkpoint = &*opened.checkpoint;
    let mut views = Vec::new();
    for (name, _, shape) in checkpoint.tensors() {
        let is_head = HEADS.iter().any(|head| name.starts_with(head));
        if is_head && (opened.config.is_tied() || !name.starts_with("lm_head.")) {
            continue;
        }
        let (dtype, _, bytes) = checkpoint.stored(&name)?;
        let merged = options.tau != 0.0 && checkpoint.is_adapted(&name);
        let tensor =
            Tensor { checkpoint, bytes, dtype, shape, merged, name: name.clone(), cause: &cause };
        views.push((published_name(&name), tensor));
    }
    let merged = Merged {
        tensors: views.len(),
        merged: views.iter().filter(|(_, tensor)| tensor.merged).count(),
        bytes: views.iter().map(|(_, tensor)| tensor.bytes.len() as u64).sum(),
        files: {
            files.push(WEIGHTS.to_owned());
            files
        },
    };
    let path = partial.join(WEIGHTS);
    // transformers asks for this mark.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let written = safetensors::serialize_to_file(views, Some(format), &path);
    if let Some(error) = cause.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    written.map_err(|e| LoadError::Write { path, source: std::io::Error::other(e) })?;
    Ok(merged)
}

/// The name that a tensor has in published checkpoints.
fn published_name(canonical: &str) -> String {
    for (own, published) in [
        ("language_model.", "language_model.model."),
        ("vision_tower.", "vision_tower.vision_model."),
        ("lm_head.", "language_model.lm_head."),
    ] {
        if let Some(rest) = canonical.strip_prefix(own) {
            return format!("{published}{rest}");
        }
    }
    canonical.to_owned()
}

/// A tensor that is merged as it is written, so that one is in memory at a time.
struct Tensor<'a> {
    checkpoint: &'a Checkpoint,
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// As stored.
    bytes: &'a [u8],
    merged: bool,
    /// The first error: the writer's own interface has no way for one.
    cause: &'a Mutex<Option<LoadError>>,
}

// === impl Tensor ===

impl Tensor<'_> {
    fn merge(&self) -> Result<Vec<u8>, LoadError> {
        let shape = Shape::from(self.shape.clone());
        let tensor = self.checkpoint.tensor(&self.name, &shape, &Device::Cpu)?;
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let (bytes, finite) = match self.dtype {
            Dtype::F32 => (values.iter().flat_map(|x| x.to_le_bytes()).collect(), true),
            Dtype::F16 => {
                let values: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
                let finite = values.iter().all(|x| x.is_finite());
                (values.iter().flat_map(|x| x.to_le_bytes()).collect(), finite)
            }
            Dtype::BF16 => {
                let values: Vec<bf16> = values.iter().map(|&x| bf16::from_f32(x)).collect();
                let finite = values.iter().all(|x| x.is_finite());
                (values.iter().flat_map(|x| x.to_le_bytes()).collect(), finite)
            }
            other => {
                let (name, found) = (self.name.clone(), format!("{other:?}"));
                return Err(LoadError::Type { name, found });
            }
        };
        // A sum may pass what the stored type holds.
        if finite { Ok(bytes) } else { Err(LoadError::NotFinite { name: self.name.clone() }) }
    }
}

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if !self.merged {
            return Cow::Borrowed(self.bytes);
        }
        self.merge().map_or_else(
            |error| {
                self.cause.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                Cow::Borrowed(self.bytes)
            },
            Cow::Owned,
        )
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> LoadError {
    let path: PathBuf = path.to_owned();
    move |source| LoadError::Write { path, source }
}

#[cfg(test)]
mod tests;
