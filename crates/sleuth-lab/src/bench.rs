//! Timing the scoring of given inputs in this process.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use serde::Serialize;
use sleuth_models::paligemma::{Group, PaliGemmaConfig, Prefix};
use sleuth_models::{LoadOptions, RewardPaliGemma};

/// What was timed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timed {
    /// One per repetition; loading excluded.
    pub seconds: Vec<f64>,
    /// Multiplications and additions that one repetition needs, in 1e9.
    pub gflops: f64,
    /// The process's peak resident memory; 0 where the system does not tell.
    pub peak_bytes: u64,
}

/// `pixel_values` f32 [G,3,H,W], `prompt_ids` i64 [G,P], `response_ids` i64 [G,R,S].
struct Inputs {
    pixels: Tensor,
    prompts: Vec<Vec<u32>>,
    responses: Vec<Vec<Vec<u32>>>,
}

/// Scores `inputs` `repeat` times and writes the last `logits` f32 [G,R,S] to `dump`.
pub fn time(
    folder: &Path,
    options: &LoadOptions,
    inputs: &Path,
    repeat: u32,
    dump: Option<&Path>,
) -> Result<Timed> {
    let model = RewardPaliGemma::open(folder, options, &Device::Cpu)
        .with_context(|| format!("load {}", folder.display()))?;
    let config = model.backbone().config();
    let inputs = Inputs::open(inputs, config).with_context(|| inputs.display().to_string())?;
    let mut seconds = Vec::new();
    let mut logits = Vec::new();
    for _ in 0..repeat {
        #[expect(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]
        let start = Instant::now();
        logits = inputs.score(&model)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    if let Some(path) = dump {
        let dumped = Tensor::from_vec(logits.concat(), inputs.shape(), &Device::Cpu)?;
        candle_core::safetensors::save(&HashMap::from([("logits", dumped)]), path)
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(Timed { seconds, gflops: inputs.gflops(config), peak_bytes: peak_bytes() })
}

// === impl Inputs ===

impl Inputs {
    fn open(path: &Path, config: &PaliGemmaConfig) -> Result<Self> {
        let tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
        let get = |name: &str| tensors.get(name).with_context(|| format!("`{name}` is missing"));
        let pixels = get("pixel_values")?.to_dtype(DType::F32)?;
        let (groups, channels, height, width) = pixels.dims4().context("`pixel_values`")?;
        let side = config.vision_config.image_size;
        ensure!(
            (channels, height, width) == (3, side, side),
            "`pixel_values` must be [G, 3, {side}, {side}]"
        );
        let prompts = ids(get("prompt_ids")?, config)?.to_vec2::<u32>().context("`prompt_ids`")?;
        let responses =
            ids(get("response_ids")?, config)?.to_vec3::<u32>().context("`response_ids`")?;
        ensure!(
            groups > 0 && prompts.len() == groups && responses.len() == groups,
            "the inputs have different numbers of groups"
        );
        Ok(Self { pixels, prompts, responses })
    }

    fn shape(&self) -> (usize, usize, usize) {
        let first = self.responses.first();
        let responses = first.map_or(0, Vec::len);
        let tokens = first.and_then(|r| r.first()).map_or(0, Vec::len);
        (self.responses.len(), responses, tokens)
    }

    fn score(&self, model: &RewardPaliGemma) -> Result<Vec<Vec<f32>>> {
        let rows = (0..self.prompts.len())
            .map(|g| Ok(model.image_rows(&self.pixels.narrow(0, g, 1)?)?.swap_remove(0)))
            .collect::<Result<Vec<_>>>()?;
        let groups: Vec<Group<'_>> = rows
            .iter()
            .zip(&self.prompts)
            .zip(&self.responses)
            .map(|((image, prompt), responses)| Group {
                prefix: Prefix::New { image, prompt },
                responses: responses.iter().map(Vec::as_slice).collect(),
            })
            .collect();
        Ok(model.score(&groups)?)
    }

    /// What the algorithm needs: every prefix once, its last layer keys and values only.
    fn gflops(&self, config: &PaliGemmaConfig) -> f64 {
        let (groups, responses, tokens) = self.shape();
        let prompt = self.prompts.first().map_or(0, Vec::len);
        let (v, t) = (&config.vision_config, &config.text_config);
        let patches = v.image_tokens() as f64;
        let vision_layer =
            (4 * v.hidden_size * v.hidden_size + 2 * v.hidden_size * v.intermediate_size) as f64;
        let vision = patches
            * (v.num_hidden_layers as f64)
            * (vision_layer + 2.0 * patches * v.hidden_size as f64)
            + patches
                * (3 * v.patch_size * v.patch_size * v.hidden_size + v.hidden_size * t.hidden_size)
                    as f64;
        let kv = (2 * t.hidden_size * t.num_key_value_heads * t.head_dim) as f64;
        let q_width = (t.num_attention_heads * t.head_dim) as f64;
        let rest =
            2.0 * t.hidden_size as f64 * q_width + (3 * t.hidden_size * t.intermediate_size) as f64;
        let (prefix, suffix) = (patches + prompt as f64, (responses * tokens) as f64);
        let layers = t.num_hidden_layers as f64;
        let prefix_cost = prefix * (layers * kv + (layers - 1.0) * (rest + 2.0 * prefix * q_width));
        let seen = prefix + f64::midpoint(tokens as f64, 1.0);
        let suffix_cost = suffix * layers * (kv + rest + 2.0 * seen * q_width);
        2.0 * groups as f64 * (vision + prefix_cost + suffix_cost) / 1e9
    }
}

/// Ids as u32, each a row of the embedding.
fn ids(tensor: &Tensor, config: &PaliGemmaConfig) -> Result<Tensor> {
    let largest = tensor.to_dtype(DType::I64)?.flatten_all()?.to_vec1::<i64>()?;
    let rows = i64::try_from(config.text_config.vocab_size)?;
    ensure!(largest.iter().all(|id| (0..rows).contains(id)), "a token id lies outside 0..{rows}");
    Ok(tensor.to_dtype(DType::U32)?)
}

/// `VmHWM` of Linux; 0 where the system does not tell.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib =
        line.and_then(|l| l.trim().strip_suffix(" kB")).and_then(|n| n.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
