//! Batches of random shapes through the engine: how well their cost is known beforehand.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use sleuth_core::{Pixels, Prepared};
use sleuth_engine::{BackboneWorker, Engine, EngineLoad, EngineSettings, PoolSettings, Terms};
use sleuth_models::cpu::KvType;
use sleuth_models::cpu::Workspace;
use sleuth_models::{Backbone, LoadError, LoadOptions, ModelConfig, RewardFolder};

/// Batches after which the engine has learned what work costs.
const LEARNED: usize = 20;

/// Predicted and measured cost of batches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Predicted {
    /// Batches that were judged: all but the first 20.
    pub batches: usize,
    /// Of |predicted - measured| / measured.
    pub median_error: f64,
    /// Nine of ten batches were predicted at least this well.
    pub p90_error: f64,
    /// Predicted and measured seconds of all of them.
    pub predicted_seconds: f64,
    /// See `predicted_seconds`.
    pub measured_seconds: f64,
}

/// Runs `batches` random batches: 1 to 4 images, prompts of 8 to 64 tokens, 1 to 16 responses of 8
/// to 96 tokens; half of the images were seen before.
pub fn predict(
    folder: &Path,
    options: &LoadOptions,
    threads: usize,
    batches: usize,
    seed: u64,
) -> Result<Predicted> {
    Ok(measure(folder, options, threads, batches, seed)?.0)
}

/// As [`predict`]; also what the engine has learned by then that work costs, and the rows of an
/// image.
pub fn measure(
    folder: &Path,
    options: &LoadOptions,
    threads: usize,
    batches: usize,
    seed: u64,
) -> Result<(Predicted, EngineLoad, usize)> {
    let opened = RewardFolder::open(folder, options)
        .with_context(|| format!("load {}", folder.display()))?;
    let config = ModelConfig::from_folder(folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let engine = match opened {
            RewardFolder::PaliGemma(opened) => {
                start(move || opened.load_cpu(KvType::F32), threads).await?
            }
            RewardFolder::Mllama(opened) => {
                start(move || opened.load_cpu(KvType::F32), threads).await?
            }
        };
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let mut seen = Vec::new();
        for n in 0..batches + LEARNED {
            let ran = run(&engine, &config, &mut dice, n as u64).await?;
            seen.extend(ran.filter(|_| n >= LEARNED));
        }
        Ok((summary(&seen), engine.load(), engine.image_tokens()))
    })
}

async fn start<B: Backbone<Space = Workspace>>(
    load: impl FnOnce() -> Result<B, LoadError> + Send + 'static,
    threads: usize,
) -> Result<Engine> {
    let pool = PoolSettings::with_threads(threads);
    let load = move || BackboneWorker::pool(load()?, "bench", pool).map_err(LoadError::Threads);
    Ok(Engine::start(load, EngineSettings::default()).await?)
}

/// One batch: what it was predicted to take and what it took, in seconds.
async fn run(
    engine: &Engine,
    config: &ModelConfig,
    dice: &mut ChaCha8Rng,
    batch: u64,
) -> Result<Option<(f64, f64)>> {
    let reservations: Vec<_> = items(config, dice, batch)
        .into_iter()
        .map(|item| {
            let prompt = Arc::clone(&item.prompt);
            let tokens = item.response.len();
            let room = engine.reserve(item.image_key, prompt, tokens, Terms::default())?;
            Ok((room, item))
        })
        .collect::<Result<_>>()?;
    // The worker may begin with the first item alone; the batch of the last one is judged.
    let submissions: Vec<_> =
        reservations.into_iter().map(|(room, item)| room.submit(item, None)).collect();
    let mut last = None;
    for submission in submissions {
        let scores = submission.await?;
        last = Some((scores.predicted.as_secs_f64(), scores.compute.as_secs_f64()));
    }
    Ok(last)
}

fn items(config: &ModelConfig, dice: &mut ChaCha8Rng, batch: u64) -> Vec<Prepared> {
    let side = config.image_side();
    let (ids, place) = (config.vocabulary() as u32, config.image_in_prompt());
    let mut items = Vec::new();
    for _ in 0..dice.random_range(1..=4) {
        let known = batch > 0 && dice.random_bool(0.5);
        let image = if known { dice.random_range(0..batch) } else { batch };
        let mut image_key = [0; 32];
        image_key[..8].copy_from_slice(&image.to_le_bytes());
        let shade = (image % 17) as f32 / 8.5 - 1.0;
        let Ok(pixels) =
            Pixels::try_new(side as u32, side as u32, vec![shade; 3 * side * side].into())
        else {
            continue;
        };
        // The image stands where it is put, and nowhere else.
        let mut tokens = |n: usize| -> Vec<u32> {
            let all = std::iter::repeat_with(|| dice.random_range(0..ids));
            all.filter(|id| Some(*id) != place).take(n).collect()
        };
        let text = tokens(8 + (batch as usize * 7) % 56);
        let prompt: Arc<[u32]> = place.into_iter().chain(text).collect();
        let responses = 1 + (batch as usize * 5) % 16;
        for r in 0..responses {
            let response = tokens(8 + (batch as usize * 11 + r * 13) % 88).into();
            let prompt = Arc::clone(&prompt);
            items.push(Prepared { pixels: pixels.clone(), image_key, prompt, response });
        }
    }
    items
}

fn summary(seen: &[(f64, f64)]) -> Predicted {
    let mut errors: Vec<f64> = seen.iter().map(|(p, m)| (p - m).abs() / m).collect();
    errors.sort_by(f64::total_cmp);
    let at = |share: f64| {
        errors.get(((errors.len() as f64 - 1.0) * share).round() as usize).copied().unwrap_or(0.0)
    };
    Predicted {
        batches: seen.len(),
        median_error: at(0.5),
        p90_error: at(0.9),
        predicted_seconds: seen.iter().map(|(p, _)| p).sum(),
        measured_seconds: seen.iter().map(|(_, m)| m).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_to_what_was_measured() {
        let seen = [(1.1, 1.0), (2.0, 2.0), (0.5, 1.0)];
        let got = summary(&seen);
        assert_eq!((got.batches, got.p90_error), (3, 0.5));
        assert!((got.median_error - 0.1).abs() < 1e-9);
        assert!((got.measured_seconds - 4.0).abs() < 1e-9);
    }
}
