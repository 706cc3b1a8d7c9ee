//! Timing scoring and generation of given inputs in this process.

pub mod generate;
pub mod mixed;

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use serde::Serialize;
use sleuth_core::Pixels;
use sleuth_models::cpu::{
    Behind, CpuModel, KvType, MllamaCpu, NewPrefix, PassShape, Suffix, SuffixKv, SuffixShape, Work,
    Workspace,
};
use sleuth_models::{Backbone, LoadOptions, ModelConfig, RewardFolder, SuffixAttention};

/// What was timed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timed {
    /// One per repetition; loading and weight packing excluded.
    pub seconds: Vec<f64>,
    /// Multiplications and additions that one repetition needs, in 1e9.
    pub gflops: f64,
    /// The process's peak resident memory; 0 where the system does not tell.
    pub peak_bytes: u64,
    /// Loading and weight packing, in seconds.
    pub load_seconds: f64,
    /// Packed weights.
    pub weight_bytes: u64,
    /// Memory that the work was predicted to take at most beside the loaded model.
    pub predicted_pass_bytes: u64,
    /// What it took: growth of the peak resident memory since the model was loaded.
    pub pass_bytes: u64,
}

/// How it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Threads of the one worker.
    pub threads: usize,
    /// Type of keys and values.
    pub kv: KvType,
    /// Times the work is done.
    pub repeat: u32,
    /// Appends so many tokens at a time to all responses together, their prefixes computed before
    /// the clock starts.
    pub chunk: Option<usize>,
}

/// `pixel_values` f32 [G,3,H,W], `prompt_ids` i64 [G,P], `response_ids` i64 [G,R,S].
struct Inputs {
    pixels: Vec<Pixels>,
    prompts: Vec<Vec<u32>>,
    responses: Vec<Vec<Vec<u32>>>,
}

/// A backbone on the CPU, whose states have keys and values as all have there.
trait OnCpu: Backbone<Space = Workspace, Suffix = SuffixKv> {
    /// Bytes that a pass of this shape takes at most.
    fn peak_bytes(&self, shape: &PassShape, threads: usize) -> u64;
}

/// Scores `inputs` and writes the last `logits` f32 [G,R,S] to `dump`.
pub fn time(
    folder: &Path,
    options: &LoadOptions,
    inputs: &Path,
    setup: Setup,
    dump: Option<&Path>,
) -> Result<Timed> {
    let start = now();
    let opened = RewardFolder::open(folder, options)
        .with_context(|| format!("load {}", folder.display()))?;
    let config = ModelConfig::from_folder(folder)?;
    let inputs = Inputs::open(inputs, &config).with_context(|| inputs.display().to_string())?;
    match opened {
        RewardFolder::PaliGemma(opened) => {
            time_on(&opened.load_cpu(setup.kv)?, &inputs, setup, dump, start)
        }
        RewardFolder::Mllama(opened) => {
            time_on(&opened.load_cpu(setup.kv)?, &inputs, setup, dump, start)
        }
    }
}

/// As [`time`], of a model whose load began at `start`.
fn time_on<B: OnCpu>(
    model: &B,
    inputs: &Inputs,
    setup: Setup,
    dump: Option<&Path>,
    start: Instant,
) -> Result<Timed> {
    let mut space = Workspace::new(setup.threads).context("start threads")?;
    let load_seconds = start.elapsed().as_secs_f64();
    let loading = memory("VmHWM");
    restart_peak();
    let loaded = memory("VmRSS");
    let mut seconds = Vec::new();
    let mut logits = Vec::new();
    // One pass more, whose time does not count: the first takes its memory from the system. Nothing
    // is held from pass to pass but that memory.
    for pass in 0..=setup.repeat {
        let taken;
        (logits, taken) = match setup.chunk {
            None => inputs.score(model, &mut space)?,
            Some(tokens) => inputs.append(model, &mut space, tokens)?,
        };
        seconds.extend((pass > 0).then_some(taken));
    }
    if let Some(path) = dump {
        let dumped = Tensor::from_vec(logits.concat(), inputs.shape(), &Device::Cpu)?;
        candle_core::safetensors::save(&HashMap::from([("logits", dumped)]), path)
            .with_context(|| format!("write {}", path.display()))?;
    }
    let peak = memory("VmHWM");
    let mut shape = inputs.pass_shape(model.facts().image_tokens);
    let predicted_pass_bytes = model.peak_bytes(&shape, setup.threads);
    if setup.chunk.is_some() {
        shape = PassShape { images: 0, prefixes: Vec::new(), ..shape };
    }
    Ok(Timed {
        seconds,
        gflops: model.cost(&shape).total(),
        peak_bytes: peak.max(loading),
        load_seconds,
        weight_bytes: model.facts().weight_bytes,
        predicted_pass_bytes,
        pass_bytes: peak.saturating_sub(loaded),
    })
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]
fn now() -> Instant {
    Instant::now()
}

impl OnCpu for CpuModel {
    fn peak_bytes(&self, shape: &PassShape, threads: usize) -> u64 {
        self.peak_bytes(shape, threads)
    }
}

impl OnCpu for MllamaCpu {
    fn peak_bytes(&self, shape: &PassShape, threads: usize) -> u64 {
        self.peak_bytes(shape, threads)
    }
}

// === impl Inputs ===

impl Inputs {
    fn open(path: &Path, config: &ModelConfig) -> Result<Self> {
        let tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
        let get = |name: &str| tensors.get(name).with_context(|| format!("`{name}` is missing"));
        let pixels = get("pixel_values")?.to_dtype(DType::F32)?;
        let (groups, channels, height, width) = pixels.dims4().context("`pixel_values`")?;
        let side = config.image_side();
        ensure!(
            channels == 3 && config.takes(height, width),
            "`pixel_values` must be [G, 3, {side}, {side}], or canvases of tiles of that side where the \
             model takes them"
        );
        let prompts = ids(get("prompt_ids")?, config)?.to_vec2::<u32>().context("`prompt_ids`")?;
        let responses =
            ids(get("response_ids")?, config)?.to_vec3::<u32>().context("`response_ids`")?;
        ensure!(
            groups > 0 && prompts.len() == groups && responses.len() == groups,
            "the inputs have different numbers of groups"
        );
        let pixels = (0..groups)
            .map(|g| {
                let values = pixels.get(g)?.flatten_all()?.to_vec1::<f32>()?;
                Ok(Pixels::try_new(height as u32, width as u32, values.into())?)
            })
            .collect::<Result<_>>()?;
        Ok(Self { pixels, prompts, responses })
    }

    fn shape(&self) -> (usize, usize, usize) {
        let first = self.responses.first();
        let responses = first.map_or(0, Vec::len);
        let tokens = first.and_then(|r| r.first()).map_or(0, Vec::len);
        (self.responses.len(), responses, tokens)
    }

    /// All of it, and the seconds it took.
    fn score<B: OnCpu>(&self, model: &B, space: &mut Workspace) -> Result<(Vec<Vec<f32>>, f64)> {
        let start = now();
        let pixels: Vec<&Pixels> = self.pixels.iter().collect();
        let features = model.see(space, &pixels)?;
        let prefixes: Vec<_> = features
            .iter()
            .zip(&self.prompts)
            .map(|(features, prompt)| NewPrefix { features, prompt })
            .collect();
        let logits = if model.facts().attention == SuffixAttention::Full {
            let sequences: Vec<_> = prefixes
                .iter()
                .zip(&self.responses)
                .flat_map(|(&prefix, rs)| rs.iter().map(move |r| (prefix, r.as_slice())))
                .collect();
            model.score_full(space, &sequences)?
        } else {
            model.score(space, Work { suffixes: self.suffixes(), prefixes })?.logits
        };
        Ok((logits, start.elapsed().as_secs_f64()))
    }

    /// The responses in appends of `chunk` tokens, and the seconds that the appends took.
    fn append<B: OnCpu>(
        &self,
        model: &B,
        space: &mut Workspace,
        chunk: usize,
    ) -> Result<(Vec<Vec<f32>>, f64)> {
        let mut open = self.open_all(model, space)?;
        let responses: Vec<&Vec<u32>> = self.responses.iter().flatten().collect();
        let mut logits: Vec<Vec<f32>> = responses.iter().map(|_| Vec::new()).collect();
        let start = now();
        let (_, _, tokens) = self.shape();
        for from in (0..tokens).step_by(chunk) {
            let to = tokens.min(from + chunk);
            let suffixes = open
                .drain(..)
                .zip(&responses)
                .map(|(so_far, tokens)| Suffix::Next { so_far, tokens: &tokens[from..to] })
                .collect();
            let done = model.score(space, Work { prefixes: Vec::new(), suffixes })?;
            open.extend(done.suffixes.into_iter().flatten());
            for (all, new) in logits.iter_mut().zip(done.logits) {
                all.extend(new);
            }
        }
        Ok((logits, start.elapsed().as_secs_f64()))
    }

    /// Every response opened, without tokens.
    fn open_all<B: OnCpu>(&self, model: &B, space: &mut Workspace) -> Result<Vec<SuffixKv>> {
        let pixels: Vec<&Pixels> = self.pixels.iter().collect();
        let features = model.see(space, &pixels)?;
        let prefixes = features
            .iter()
            .zip(&self.prompts)
            .map(|(features, prompt)| NewPrefix { features, prompt })
            .collect();
        let groups = self.responses.iter().enumerate();
        let suffixes = groups
            .flat_map(|(at, responses)| {
                let first = move |_| Suffix::First { prefix: Behind::New(at), tokens: &[] };
                responses.iter().map(first)
            })
            .collect();
        let done = model.score(space, Work { prefixes, suffixes })?;
        Ok(done.suffixes.into_iter().flatten().collect())
    }

    fn suffixes<P>(&self) -> Vec<Suffix<'_, P>> {
        let groups = self.responses.iter().enumerate();
        groups
            .flat_map(|(at, responses)| {
                let prefix = Behind::New(at);
                responses.iter().map(move |tokens| Suffix::Whole { prefix, tokens })
            })
            .collect()
    }

    fn pass_shape(&self, image_tokens: usize) -> PassShape {
        let (groups, responses, rows) = self.shape();
        let prefix = image_tokens + self.prompts.first().map_or(0, Vec::len);
        let suffix = SuffixShape { prefix, past: 0, rows, kept: false };
        PassShape {
            images: groups,
            prefixes: vec![prefix; groups],
            suffixes: vec![suffix; groups * responses],
        }
    }
}

/// Ids as u32, each a row of the embedding.
fn ids(tensor: &Tensor, config: &ModelConfig) -> Result<Tensor> {
    let largest = tensor.to_dtype(DType::I64)?.flatten_all()?.to_vec1::<i64>()?;
    let rows = i64::try_from(config.embedding_rows())?;
    ensure!(largest.iter().all(|id| (0..rows).contains(id)), "a token id lies outside 0..{rows}");
    Ok(tensor.to_dtype(DType::U32)?)
}

/// A figure of Linux's `/proc/self/status`, in bytes; 0 where the system does not tell.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    let kib =
        line.and_then(|l| l.trim().strip_suffix(" kB")).and_then(|n| n.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Makes `VmHWM` count from what is resident now. Where that is not allowed it counts from the
/// start, and what a pass took reads larger than it was.
fn restart_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
