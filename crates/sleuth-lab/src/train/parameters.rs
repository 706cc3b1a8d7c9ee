use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use rand::SeedableRng;
use rand::distr::{Distribution, Uniform};
use rand_chacha::ChaCha8Rng;
use sleuth_models::checkpoint::Checkpoint;

/// Where a layer looks for its dropout.
const DROPOUT: &str = ".lora_dropout";

/// Named trainable tensors, f32, on the CPU.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters(BTreeMap<String, Var>);

/// Makes a missing parameter from a seed and its name, or reads it.
struct Creating<'a> {
    seed: u64,
    /// Has every parameter that is no head.
    stored: Option<&'a Checkpoint>,
    made: &'a Mutex<Parameters>,
}

/// Frozen base weights, and low-rank pairs to be trained.
struct Adapted<'a> {
    base: &'a Parameters,
    lora: &'a Parameters,
    scale: f64,
    dropout: Option<LoraDropout>,
}

/// What of each pair's input is left out in one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoraDropout {
    /// In 0..1.
    pub(super) chance: f64,
    /// Of the step.
    pub(super) seed: u64,
}

// === impl Parameters ===

impl Parameters {
    /// Runs `build`; every parameter it asks for that is not in `self` yet is created.
    pub(super) fn create<T>(
        self,
        seed: u64,
        build: impl FnOnce(&VarBuilder<'_>) -> Result<T>,
    ) -> Result<(Self, T)> {
        self.create_over(None, seed, build)
    }

    /// Runs `build`; every parameter of the backbone is read from a checkpoint, heads are created.
    pub(super) fn read<T>(
        checkpoint: &Checkpoint,
        seed: u64,
        build: impl FnOnce(&VarBuilder<'_>) -> Result<T>,
    ) -> Result<(Self, T)> {
        Self::default().create_over(Some(checkpoint), seed, build)
    }

    fn create_over<T>(
        self,
        stored: Option<&Checkpoint>,
        seed: u64,
        build: impl FnOnce(&VarBuilder<'_>) -> Result<T>,
    ) -> Result<(Self, T)> {
        let made = Mutex::new(self);
        let vb = VarBuilder::from_backend(
            Box::new(Creating { seed, stored, made: &made }),
            DType::F32,
            Device::Cpu,
        );
        let built = build(&vb)?;
        drop(vb);
        let parameters = made.into_inner().map_err(|e| candle_core::Error::Msg(e.to_string()))?;
        Ok((parameters, built))
    }

    /// Builds over `self` with `lora`'s pairs beside every module that has one there:
    /// `W + scale · B · A`.
    pub(super) fn build_adapted<T>(
        &self,
        lora: &Self,
        scale: f64,
        dropout: Option<LoraDropout>,
        build: impl FnOnce(&VarBuilder<'_>) -> Result<T>,
    ) -> Result<T> {
        let backend = Adapted { base: self, lora, scale, dropout };
        build(&VarBuilder::from_backend(Box::new(backend), DType::F32, Device::Cpu))
    }

    /// LoRA pairs for every weight matrix of `self` that `wanted` names: A uniform as PEFT
    /// initialises it, B zero.
    pub(super) fn lora_pairs(
        &self,
        rank: usize,
        seed: u64,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let mut pairs = BTreeMap::new();
        for (name, var) in &self.0 {
            let Some(module) = name.strip_suffix(".weight").filter(|m| wanted(m)) else { continue };
            let (output, input) = var.dims2()?;
            let a = uniform(
                &format!("{module}.lora_A"),
                (rank, input),
                1.0 / (input as f64).sqrt(),
                seed,
            )?;
            pairs.insert(format!("{module}.lora_A.weight"), Var::from_tensor(&a)?);
            pairs.insert(
                format!("{module}.lora_B.weight"),
                Var::zeros((output, rank), DType::F32, &Device::Cpu)?,
            );
        }
        Ok(Self(pairs))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Var)> {
        self.0.iter()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Var> {
        self.0.get(name)
    }

    pub(super) fn insert(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        self.0.insert(name.to_owned(), Var::from_tensor(&tensor.copy()?)?);
        Ok(())
    }

    /// Those whose names `wanted` accepts; they share storage with `self`.
    pub(super) fn subset(&self, wanted: impl Fn(&str) -> bool) -> Self {
        Self(
            self.0.iter().filter(|(n, _)| wanted(n)).map(|(n, v)| (n.clone(), v.clone())).collect(),
        )
    }

    /// The tensors, by name, for saving.
    pub(super) fn tensors(&self, prefix: &str) -> HashMap<String, Tensor> {
        self.0.iter().map(|(n, v)| (format!("{prefix}{n}"), v.as_tensor().clone())).collect()
    }

    /// The tensors whose names begin with `prefix`, without it.
    pub(super) fn from_tensors(tensors: &HashMap<String, Tensor>, prefix: &str) -> Result<Self> {
        let named = tensors.iter().filter_map(|(n, t)| Some((n.strip_prefix(prefix)?, t)));
        let vars = named.map(|(n, t)| Ok((n.to_owned(), Var::from_tensor(t)?)));
        Ok(Self(vars.collect::<Result<_>>()?))
    }
}

// === impl Creating ===

impl SimpleBackend for Creating<'_> {
    fn get(&self, shape: Shape, name: &str, _: Init, _: DType, _: &Device) -> Result<Tensor> {
        let mut made = self.made.lock().map_err(|e| candle_core::Error::Msg(e.to_string()))?;
        if let Some(var) = made.0.get(name) {
            return Ok(var.as_tensor().clone());
        }
        let is_head = name.starts_with("score.") || name.starts_with("patch_head.");
        let value = match self.stored.filter(|_| !is_head) {
            Some(stored) => {
                stored.tensor(name, &shape, &Device::Cpu).map_err(candle_core::Error::wrap)?
            }
            None => initial(name, &shape, self.seed)?,
        };
        let var = Var::from_tensor(&value)?;
        let tensor = var.as_tensor().clone();
        made.0.insert(name.to_owned(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("`{name}` was asked for without a shape")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        !name.contains(".lora_")
    }
}

// === impl Adapted ===

impl SimpleBackend for Adapted<'_> {
    fn get(&self, _: Shape, name: &str, _: Init, _: DType, _: &Device) -> Result<Tensor> {
        // Detached: the base stays as it is, and no gradient is computed for it.
        match self.base.get(name) {
            Some(base) => Ok(base.as_tensor().detach()),
            None => candle_core::bail!("no parameter is named `{name}`"),
        }
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        if let (Some(dropout), true) = (self.dropout, name.ends_with(DROPOUT)) {
            return dropout.of(name);
        }
        match self.lora.get(name) {
            Some(b) if name.ends_with(".lora_B.weight") => b.as_tensor() * self.scale,
            Some(a) => Ok(a.as_tensor().clone()),
            None => candle_core::bail!("no parameter is named `{name}`"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        match name.strip_suffix(DROPOUT) {
            Some(module) => {
                self.dropout.is_some()
                    && self.lora.get(&format!("{module}.lora_A.weight")).is_some()
            }
            None => self.base.get(name).is_some() || self.lora.get(name).is_some(),
        }
    }
}

// === impl LoraDropout ===

impl LoraDropout {
    /// As a layer reads it: chance and a seed of its own.
    fn of(self, name: &str) -> Result<Tensor> {
        let seed = (self.seed ^ hash(name)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        Tensor::new(&[self.chance as f32, seed as f32], &Device::Cpu)
    }
}

/// Norm weights that multiply by `1 + w` start at 0, layer norms at 1, biases at 0, all else
/// uniform by fan-in.
fn initial(name: &str, shape: &Shape, seed: u64) -> Result<Tensor> {
    let is_layer_norm = ["layer_norm1.weight", "layer_norm2.weight", "post_layernorm.weight"];
    if is_layer_norm.iter().any(|suffix| name.ends_with(suffix)) {
        return Tensor::ones(shape, DType::F32, &Device::Cpu);
    }
    let is_bias = name.rsplit('.').next() == Some("bias");
    if is_bias || name.ends_with("norm.weight") || name.starts_with("score.") {
        return Tensor::zeros(shape, DType::F32, &Device::Cpu);
    }
    let fan_in: usize = shape.dims()[1..].iter().product();
    let spread = match name {
        n if n.contains("position_embedding") => 0.05,
        _ => (3.0 / fan_in as f64).sqrt(),
    };
    uniform(name, shape.clone(), spread, seed)
}

/// FNV-1a.
fn hash(name: &str) -> u64 {
    let next = |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, next)
}

/// Uniform in ±`spread`, from the seed and the name.
fn uniform(name: &str, shape: impl Into<Shape>, spread: f64, seed: u64) -> Result<Tensor> {
    let shape = shape.into();
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ hash(name));
    let range =
        Uniform::new(-spread, spread).map_err(|e| candle_core::Error::Msg(e.to_string()))?;
    let values: Vec<f32> = (0..shape.elem_count()).map(|_| range.sample(&mut rng) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}
