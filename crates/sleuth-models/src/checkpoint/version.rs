use std::fs::{self, File};
use std::path::{Path, PathBuf};

use blake3::Hasher;

use crate::LoadError;
use crate::cpu::KvType;
use crate::device::WeightType;

/// What names a version, in the contract's order.
#[derive(Clone, Debug)]
pub struct VersionParts<'a> {
    /// The model folder: config, weights, tokenizer, preprocessor and reward files.
    pub folder: &'a Path,
    /// The weight files inside it.
    pub weights: &'a [PathBuf],
    /// The adapter's files.
    pub adapter: &'a [PathBuf],
    /// Factor on the adapter's deltas.
    pub tau: f64,
}

const MODEL_FILES: [&str; 6] = [
    "config.json",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "reward_config.json",
    "reward_head.safetensors",
    "tokenizer.json",
];
/// The files behind a version, digested once.
#[derive(Clone, Debug)]
pub struct VersionFiles {
    files: Hasher,
    tau: f64,
}

// === impl VersionFiles ===

impl VersionFiles {
    /// Digests the sorted (file name, length, file digest) of the model's files, then the
    /// adapter's.
    pub fn read(parts: &VersionParts<'_>) -> Result<Self, LoadError> {
        let mut files = Hasher::new();
        let named =
            MODEL_FILES.iter().map(|name| parts.folder.join(name)).filter(|path| path.exists());
        add_files(&mut files, named.chain(parts.weights.iter().cloned()).collect())?;
        add_files(&mut files, parts.adapter.to_vec())?;
        Ok(Self { files, tau: parts.tau })
    }

    /// The version: BLAKE3 over the files, then weight type (arithmetic is always f32), K/V type
    /// and τ. 64 hexadecimal digits.
    pub fn name(&self, kv: KvType) -> String {
        self.name_on(WeightType::F32, kv)
    }

    /// As [`Self::name`], with weights of another type.
    pub fn name_on(&self, weights: WeightType, kv: KvType) -> String {
        let mut hasher = self.files.clone();
        hasher.update(format!("weights={} kv={}", weights.name(), kv.name()).as_bytes());
        hasher.update(&self.tau.to_le_bytes());
        hasher.finalize().to_hex().to_string()
    }
}

fn add_files(hasher: &mut Hasher, mut files: Vec<PathBuf>) -> Result<(), LoadError> {
    files.sort();
    hasher.update(&(files.len() as u64).to_le_bytes());
    for path in files {
        let read = |source| LoadError::Read { path: path.clone(), source };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let length = fs::metadata(&path).map_err(read)?.len();
        let digest =
            Hasher::new().update_reader(File::open(&path).map_err(read)?).map_err(read)?.finalize();
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&length.to_le_bytes());
        hasher.update(digest.as_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_follows_content_adapter_and_tau_not_the_folder() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&one, &two] {
            fs::write(dir.path().join("config.json"), "{}").unwrap();
        }
        let of = |folder: &Path, adapter: &[PathBuf], tau| {
            let parts = VersionParts { folder, weights: &[], adapter, tau };
            VersionFiles::read(&parts).unwrap().name(KvType::F32)
        };
        let base = of(one.path(), &[], 1.0);
        assert_eq!(base.len(), 64);
        assert_eq!(base, of(two.path(), &[], 1.0));
        assert_ne!(base, of(one.path(), &[], 0.5));
        assert_ne!(base, of(one.path(), &[one.path().join("config.json")], 1.0));
        fs::write(two.path().join("config.json"), "{ }").unwrap();
        assert_ne!(base, of(two.path(), &[], 1.0));
    }
}
