use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use regex::Regex;
use serde::Deserialize;

use super::names::canonical_name;
use super::tensors::check_header;
use crate::LoadError;

/// A PEFT LoRA adapter folder: `adapter_config.json` and `adapter_model.safetensors`.
#[derive(Debug)]
pub struct Adapter {
    folder: PathBuf,
    /// Canonical module path to its low-rank pair.
    pairs: BTreeMap<String, Pair>,
    /// Whole modules that were saved beside: canonical tensor name to tensor.
    saved: BTreeMap<String, Tensor>,
}

#[derive(Debug)]
struct Pair {
    /// `[rank, in]`.
    a: Tensor,
    /// `[out, rank]`.
    b: Tensor,
    scale: f64,
    transposed: bool,
}

#[derive(Debug, Deserialize)]
struct Config {
    peft_type: Option<String>,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f64>,
}

// === impl Adapter ===

impl Adapter {
    /// Reads the folder. Module paths may follow either name family; the tensors' own shapes say
    /// the rank, which may exceed the width of the module it adapts.
    pub fn open(folder: &Path) -> Result<Self, LoadError> {
        let config = Config::from_folder(folder)?;
        let path = folder.join("adapter_model.safetensors");
        check_header(&path)?;
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu)
            .map_err(|e| LoadError::malformed(&path, e))?;
        let mut halves: BTreeMap<String, (Option<Tensor>, Option<Tensor>)> = BTreeMap::new();
        let mut saved = BTreeMap::new();
        for (key, tensor) in tensors {
            let tensor = tensor.to_dtype(DType::F32)?;
            match Key::parse(&key) {
                Key::A(module) => halves.entry(module).or_default().0 = Some(tensor),
                Key::B(module) => halves.entry(module).or_default().1 = Some(tensor),
                Key::Saved(name) => drop(saved.insert(name, tensor)),
                Key::Unknown => {
                    return Err(LoadError::Unsupported { path, what: format!("tensor `{key}`") });
                }
            }
        }
        let mut pairs = BTreeMap::new();
        for (module, halves) in halves {
            let (Some(a), Some(b)) = halves else {
                return Err(LoadError::malformed(
                    &path,
                    format!("`{module}` has only one of lora_A and lora_B"),
                ));
            };
            let pair =
                Pair::new(a, b, &config, &module).map_err(|p| LoadError::malformed(&path, p))?;
            pairs.insert(module, pair);
        }
        Ok(Self { folder: folder.to_owned(), pairs, saved })
    }

    /// Where it was read from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The adapter's name: its folder's.
    pub fn name(&self) -> String {
        self.folder
            .file_name()
            .map_or_else(|| "adapter".to_owned(), |n| n.to_string_lossy().into_owned())
    }

    /// The files that make it up.
    pub fn files(&self) -> [PathBuf; 2] {
        ["adapter_config.json", "adapter_model.safetensors"].map(|name| self.folder.join(name))
    }

    /// Canonical paths of the modules it adapts.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.pairs.keys().map(String::as_str)
    }

    /// The largest rank.
    pub fn rank(&self) -> usize {
        self.pairs.values().filter_map(|pair| pair.a.dim(0).ok()).max().unwrap_or(0)
    }

    /// A tensor saved whole, such as the reward head's, by canonical name.
    pub fn saved(&self, name: &str) -> Option<&Tensor> {
        self.saved.get(name)
    }

    /// `weight + tau · scale · B · A` in f32, or `weight` itself for a module it does not adapt.
    pub fn merge(&self, module: &str, weight: Tensor, tau: f64) -> Result<Tensor, LoadError> {
        // With tau 0 the base comes back bit for bit, also where a delta would be -0 or NaN.
        let Some(pair) = self.pairs.get(module).filter(|_| tau != 0.0) else {
            return Ok(weight);
        };
        let delta = pair.b.matmul(&pair.a)?;
        let delta = if pair.transposed { delta.t()? } else { delta };
        if delta.dims() != weight.dims() {
            return Err(LoadError::Shape {
                name: format!("{module}.lora_B·lora_A"),
                expected: weight.dims().to_vec(),
                found: delta.dims().to_vec(),
            });
        }
        let delta = (delta * (pair.scale * tau))?.to_device(weight.device())?;
        Ok((weight + delta)?)
    }
}

// === impl Config ===

impl Config {
    fn from_folder(folder: &Path) -> Result<Self, LoadError> {
        let path = folder.join("adapter_config.json");
        let text = fs::read_to_string(&path)
            .map_err(|source| LoadError::Read { path: path.clone(), source })?;
        let config: Self =
            serde_json::from_str(&text).map_err(|e| LoadError::malformed(&path, e))?;
        let unsupported =
            |what: &str| LoadError::Unsupported { path: path.clone(), what: what.to_owned() };
        match config.peft_type.as_deref() {
            None | Some("LORA") => {}
            Some(other) => return Err(unsupported(&format!("peft_type `{other}`"))),
        }
        if config.use_dora {
            return Err(unsupported("use_dora"));
        }
        if config.r == 0 {
            return Err(LoadError::malformed(path, "`r` must be at least 1"));
        }
        Ok(config)
    }

    /// PEFT's rule: a pattern applies where it matches the end of the module's path.
    fn alpha(&self, module: &str) -> Result<f64, String> {
        for (pattern, alpha) in &self.alpha_pattern {
            let whole = Regex::new(&format!(r"^(.*\.)?({pattern})$"))
                .map_err(|e| format!("alpha_pattern `{pattern}`: {e}"))?;
            if whole.is_match(module)
                || *pattern == canonical_name(module)
                || canonical_name(pattern) == module
            {
                return Ok(*alpha);
            }
        }
        Ok(self.lora_alpha)
    }
}

// === impl Pair ===

impl Pair {
    fn new(a: Tensor, b: Tensor, config: &Config, module: &str) -> Result<Self, String> {
        let (&[rank, _], &[_, b_rank]) = (a.dims(), b.dims()) else {
            return Err(format!("`{module}`: lora_A and lora_B must be matrices"));
        };
        if rank != b_rank || rank == 0 {
            return Err(format!("`{module}`: lora_A has rank {rank} and lora_B {b_rank}"));
        }
        let divisor = if config.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        let scale = config.alpha(module)? / divisor;
        Ok(Self { a, b, scale, transposed: config.fan_in_fan_out })
    }
}

/// What a tensor's name in an adapter file says.
enum Key {
    A(String),
    B(String),
    Saved(String),
    Unknown,
}

impl Key {
    /// PEFT writes `base_model.model.<path>.lora_A.weight`; a raw state dict has the adapter's name
    /// in between (`lora_A.default.weight`, `modules_to_save.default.weight`).
    fn parse(key: &str) -> Self {
        for (marker, make) in [(".lora_A.", Self::A as fn(String) -> Self), (".lora_B.", Self::B)] {
            if let Some((module, rest)) = key.rsplit_once(marker) {
                return if rest.rsplit('.').next() == Some("weight") {
                    make(canonical_name(module))
                } else {
                    Self::Unknown
                };
            }
        }
        if key.contains("lora_") || key.contains(".original_module.") {
            return Self::Unknown;
        }
        let name = match key.split_once(".modules_to_save.") {
            Some((module, rest)) => {
                let leaf = rest.rsplit('.').next().unwrap_or(rest);
                format!("{module}.{leaf}")
            }
            None => key.to_owned(),
        };
        let name = canonical_name(&name);
        match name.rsplit_once('.') {
            Some((_, "weight" | "bias")) => Self::Saved(name),
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        serde_json::from_str(text).unwrap()
    }

    fn pair(config: &Config, module: &str) -> Pair {
        let a = Tensor::ones((4, 3), DType::F32, &Device::Cpu).unwrap();
        let b = Tensor::ones((2, 4), DType::F32, &Device::Cpu).unwrap();
        Pair::new(a, b, config, module).unwrap()
    }

    #[test]
    fn scale_follows_rank_or_its_root() {
        let plain = config(r#"{"r": 4, "lora_alpha": 8}"#);
        assert!((pair(&plain, "m").scale - 2.0).abs() < 1e-12);
        let rooted = config(r#"{"r": 4, "lora_alpha": 8, "use_rslora": true}"#);
        assert!((pair(&rooted, "m").scale - 4.0).abs() < 1e-12);
    }

    #[test]
    fn alpha_patterns_match_the_end_of_the_path() {
        let c = config(
            r#"{"r": 4, "lora_alpha": 8, "alpha_pattern": {"q_proj": 16, "layers.1.mlp.up_proj": 4}}"#,
        );
        assert_eq!(c.alpha("language_model.layers.0.self_attn.q_proj"), Ok(16.0));
        assert_eq!(c.alpha("language_model.layers.1.mlp.up_proj"), Ok(4.0));
        assert_eq!(c.alpha("language_model.layers.0.mlp.up_proj"), Ok(8.0));
    }

    #[test]
    fn saved_modules_of_every_spelling_are_found() {
        for key in [
            "base_model.model.score.weight",
            "base_model.model.score.modules_to_save.default.weight",
        ] {
            assert!(matches!(Key::parse(key), Key::Saved(name) if name == "score.weight"), "{key}");
        }
        assert!(matches!(Key::parse("base_model.model.x.lora_embedding_A"), Key::Unknown));
    }
}
