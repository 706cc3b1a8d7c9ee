//! Holds this machine's GPUs to what the CPU is held to, and measures them: `cargo xtask gpu-check`.
//!
//! ```sh
//! gpu_check GOLDEN_FOLDER [MODEL INPUTS]
//! ```
//! prints one JSON object: `devices`, `parity` (worst difference in logit from transformers, for each
//! golden case and device), `sameness` (the same batch again, alone and behind a held prefix), `sharing`
//! (prefixes that went from device to device) and, with a model and its inputs as `sleuth bench` takes
//! them, `group` (seconds and TFLOP/s of a group). It ends with 1 where a difference is too large.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use std::{env, fs, io};

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use sleuth_core::{Pixels, Prepared};
use sleuth_engine::{BackboneWorker, DeviceChoice, Devices, Outcome, Part, RewardModel, Task};
use sleuth_models::backbone::{PassShape, SuffixShape};
use sleuth_models::cpu::KvType;
use sleuth_models::device::{DeviceModel, DeviceSettings, DeviceSuffix, WeightType};
use sleuth_models::{LoadOptions, ModelFolder, SuffixAttention};

type Failure = Box<dyn std::error::Error>;
type Worker = BackboneWorker<DeviceModel>;

/// Absolute, of logits of order 5, as on the CPU.
const TOLERANCE: f32 = 2e-4;
const EXACT: DeviceSettings =
    DeviceSettings { weights: WeightType::F32, kv: KvType::F32, score_bytes: 256 << 20 };

/// What transformers makes of one golden case.
struct Case {
    name: String,
    items: Vec<Prepared>,
    logits: Vec<Vec<f32>>,
}

fn main() -> Result<ExitCode, Failure> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [golden, bench @ ..] = &arguments[..] else {
        return Err("usage: gpu_check GOLDEN_FOLDER [MODEL INPUTS]".into());
    };
    let mut worst = 0.0_f32;
    let (mut parity, mut sameness, mut sharing) = (Vec::new(), Vec::new(), Vec::new());
    let mut report = String::new();
    for folder in folders(golden)? {
        let adapter = Some(folder.join("adapter")).filter(|path| path.exists());
        let opened = ModelFolder::open(&folder, &LoadOptions { adapter, tau: 1.0 })?;
        let devices = find(&opened, EXACT)?;
        report = devices.report();
        let case = read(&folder, &opened)?;
        let mut workers = devices.load(&opened, &case.name)?;
        for (place, worker) in workers.iter_mut().enumerate() {
            let off = off(&score(worker, &case.items)?, &case.logits);
            worst = worst.max(off);
            parity.push(json!({"case": case.name, "device": place, "off": off}));
        }
        if opened.settings.suffix_attention == SuffixAttention::Causal {
            sameness.push(same(&mut workers, &case)?);
            sharing.push(shared(&devices, &opened, &case)?);
        }
    }
    let group = match bench {
        [model, inputs] => timed(model, inputs)?,
        _ => Value::Null,
    };
    let result = json!({
        "devices": report,
        "tolerance": TOLERANCE,
        "worst": worst,
        "parity": parity,
        "sameness": sameness,
        "sharing": sharing,
        "group": group,
    });
    serde_json::to_writer_pretty(io::stdout().lock(), &result)?;
    Ok(if worst <= TOLERANCE { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn find(opened: &ModelFolder, model: DeviceSettings) -> Result<Devices, Failure> {
    let devices = Devices::find(opened, DeviceChoice { ordinals: None, memory_share: 0.9, model })?;
    if devices.count() == 0 { Err(devices.why_none().into()) } else { Ok(devices) }
}

fn folders(golden: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(golden)? {
        folders.extend(Some(entry?.path()).filter(|path| path.is_dir()));
    }
    folders.sort();
    Ok(folders)
}

fn read(folder: &Path, opened: &ModelFolder) -> Result<Case, Failure> {
    let golden = candle_core::safetensors::load(folder.join("golden.safetensors"), &Device::Cpu)?;
    let get = |name: &str| golden.get(name).ok_or_else(|| format!("no `{name}`"));
    let ids = |name: &str| -> Result<Arc<[u32]>, Failure> {
        Ok(get(name)?.to_dtype(DType::U32)?.to_vec1()?.into())
    };
    let side = opened.config.vision_config.image_size as u32;
    let values: Vec<f32> = get("pixel_values")?.flatten_all()?.to_vec1()?;
    let pixels = Pixels::try_new(side, side, values.into())?;
    let (mut items, mut logits) = (Vec::new(), Vec::new());
    for r in 0..64 {
        if !golden.contains_key(&format!("response_ids.{r}")) {
            break;
        }
        items.push(Prepared {
            pixels: pixels.clone(),
            image_key: [1; 32],
            prompt: ids("prompt_ids")?,
            response: ids(&format!("response_ids.{r}"))?,
        });
        logits.push(get(&format!("logits.{r}"))?.flatten_all()?.to_vec1()?);
    }
    Ok(Case { name: folder.display().to_string(), items, logits })
}

fn outcomes(
    worker: &mut Worker,
    items: &[Prepared],
) -> Result<Vec<Outcome<DeviceSuffix>>, Failure> {
    let tasks =
        items.iter().map(|item| Task { prepared: item.clone(), part: Part::Whole }).collect();
    Ok(worker.score(tasks).into_iter().collect::<Result<_, _>>()?)
}

fn score(worker: &mut Worker, items: &[Prepared]) -> Result<Vec<Vec<f32>>, Failure> {
    Ok(outcomes(worker, items)?.into_iter().map(|outcome| outcome.logits).collect())
}

fn off(got: &[Vec<f32>], want: &[Vec<f32>]) -> f32 {
    let pairs = got.iter().flatten().zip(want.iter().flatten());
    let all = pairs.map(|(a, b)| (a - b).abs());
    all.fold(0.0, |worst, off| if off > worst || off.is_nan() { off } else { worst })
}

/// How far logits move with what should change nothing, on the first device.
fn same(workers: &mut [Worker], case: &Case) -> Result<Value, Failure> {
    let Some(worker) = workers.first_mut() else { return Ok(Value::Null) };
    let (first, again) = (score(worker, &case.items)?, score(worker, &case.items)?);
    let mut alone = Vec::new();
    for item in &case.items {
        alone.extend(score(worker, std::slice::from_ref(item))?);
    }
    Ok(json!({
        "case": case.name,
        "again": off(&again, &first),
        "alone": off(&alone, &first),
    }))
}

/// One device computes a prefix, the others take it over.
fn shared(devices: &Devices, opened: &ModelFolder, case: &Case) -> Result<Value, Failure> {
    let mut workers = devices.load(opened, &case.name)?;
    let mut offs = Vec::new();
    for worker in &mut workers {
        offs.push(off(&score(worker, &case.items)?, &case.logits));
    }
    let copied = workers.first().map(|worker| worker.facts().prefixes.prefix_stats().copied);
    Ok(json!({"case": case.name, "devices": workers.len(), "copied": copied, "off": offs}))
}

/// A group as `sleuth bench` has it: every prefix computed anew each time, five times after one.
fn timed(model: &Path, inputs: &Path) -> Result<Value, Failure> {
    let opened = ModelFolder::open(model, &LoadOptions::default())?;
    let devices = find(&opened, DeviceSettings::default())?;
    let mut workers = devices.load(&opened, "bench")?;
    let Some(worker) = workers.first_mut() else { return Ok(Value::Null) };
    let items = inputs_of(inputs, &opened)?;
    let mut seconds = Vec::new();
    for round in 0_u8..6 {
        let items: Vec<Prepared> = items
            .iter()
            .cloned()
            .map(|mut item| {
                // Another key, so that nothing is held.
                item.image_key[31] = round;
                item
            })
            .collect();
        let started = now();
        outcomes(worker, &items)?;
        seconds.extend((round > 0).then(|| started.elapsed().as_secs_f64()));
    }
    let cost = cost(&opened, &items);
    let best = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(json!({"seconds": seconds, "gflop": cost, "best_tflop_per_second": cost / best / 1e3}))
}

fn inputs_of(path: &Path, opened: &ModelFolder) -> Result<Vec<Prepared>, Failure> {
    let inputs = candle_core::safetensors::load(path, &Device::Cpu)?;
    let get = |name: &str| inputs.get(name).ok_or_else(|| format!("no `{name}`"));
    let rows = |tensor: &Tensor| -> Result<Vec<Vec<u32>>, Failure> {
        Ok(tensor.to_dtype(DType::U32)?.to_vec2()?)
    };
    let (pixels, prompts) = (get("pixel_values")?, rows(get("prompt_ids")?)?);
    let responses = get("response_ids")?;
    let side = opened.config.vision_config.image_size as u32;
    let mut items = Vec::new();
    for (group, prompt) in prompts.iter().enumerate() {
        let values: Vec<f32> = pixels.get(group)?.flatten_all()?.to_vec1()?;
        let pixels = Pixels::try_new(side, side, values.into())?;
        for response in rows(&responses.get(group)?)? {
            items.push(Prepared {
                pixels: pixels.clone(),
                image_key: [group as u8; 32],
                prompt: prompt.as_slice().into(),
                response: response.into(),
            });
        }
    }
    Ok(items)
}

/// Multiplications and additions of the group, in 1e9.
fn cost(opened: &ModelFolder, items: &[Prepared]) -> f64 {
    let image = opened.config.vision_config.image_tokens();
    let mut shape = PassShape::default();
    let mut known = Vec::new();
    for item in items {
        let prefix = image + item.prompt.len();
        if !known.contains(&(item.image_key, &item.prompt)) {
            known.push((item.image_key, &item.prompt));
            shape.prefixes.push(prefix);
            shape.images += 1;
        }
        let rows = item.response.len();
        shape.suffixes.push(SuffixShape { prefix, past: 0, rows, kept: false });
    }
    sleuth_models::paligemma::pass_cost(&opened.config, &shape).total()
}

#[expect(clippy::disallowed_methods, reason = "there is no async runtime here")]
fn now() -> Instant {
    Instant::now()
}
