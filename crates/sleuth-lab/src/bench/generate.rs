//! Timing of generation: candidates from one shared prefix.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use sleuth_engine::{
    Candidate, Generate, Generator, GeneratorSettings, LanguageSettings, LanguageWorker, Sampling,
    Stop,
};
use sleuth_models::cpu::KvType;
use sleuth_models::{BackboneFolder, LoadOptions};

use super::{Inputs, memory, now};

/// What was timed: for each group of the inputs its prefix, then candidates of so many tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Generated {
    /// One per repetition: prefixes and all tokens.
    pub seconds: Vec<f64>,
    /// One per repetition: prefixes and the first token of each candidate.
    pub first_seconds: Vec<f64>,
    /// Candidates of each group.
    pub candidates: usize,
    /// Tokens of each candidate.
    pub tokens: usize,
    /// Groups.
    pub groups: usize,
    /// Loading and weight packing, in seconds.
    pub load_seconds: f64,
    /// Packed weights.
    pub weight_bytes: u64,
    /// The process's peak resident memory; 0 where the system does not tell.
    pub peak_bytes: u64,
}

/// How generation is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerateSetup {
    /// Threads.
    pub threads: usize,
    /// Type of keys and values.
    pub kv: KvType,
    /// Times the work is done.
    pub repeat: u32,
    /// Candidates of each group.
    pub candidates: NonZeroUsize,
    /// Tokens of each candidate; at least 2, since the first comes with the prefix.
    pub tokens: NonZeroUsize,
}

/// Samples at temperature 1, without an end, and holds no prefix from one call to the next.
pub fn time_generation(
    folder: &Path,
    options: &LoadOptions,
    inputs: &Path,
    setup: GenerateSetup,
) -> Result<Generated> {
    let start = now();
    let opened = BackboneFolder::open(folder, options)
        .with_context(|| format!("load {}", folder.display()))?;
    let inputs =
        Inputs::open(inputs, &opened.config).with_context(|| inputs.display().to_string())?;
    let weight_bytes = opened.weight_bytes();
    let settings = LanguageSettings {
        kv: setup.kv,
        prefix_bytes: 0,
        vision_bytes: 0,
        ..LanguageSettings::with_threads(setup.threads).fitting(&opened)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let load = move || LanguageWorker::load(&opened, settings, u64::MAX);
        let generator = Generator::start(load, GeneratorSettings::default()).await?;
        let load_seconds = start.elapsed().as_secs_f64();
        let (mut seconds, mut first_seconds) = (Vec::new(), Vec::new());
        // One pass more, whose time does not count: the first takes its memory from the system.
        for pass in 0..=setup.repeat {
            let all = run(&generator, &inputs, setup, setup.tokens, pass).await?;
            let first = run(&generator, &inputs, setup, NonZeroUsize::MIN, pass).await?;
            if pass > 0 {
                seconds.push(all);
                first_seconds.push(first);
            }
        }
        generator.shutdown(Duration::from_secs(1)).await;
        Ok(Generated {
            seconds,
            first_seconds,
            candidates: setup.candidates.get(),
            tokens: setup.tokens.get(),
            groups: inputs.prompts.len(),
            load_seconds,
            weight_bytes,
            peak_bytes: memory("VmHWM"),
        })
    })
}

/// All groups, one after the other; the seconds that took.
async fn run(
    generator: &Generator,
    inputs: &Inputs,
    setup: GenerateSetup,
    tokens: NonZeroUsize,
    pass: u32,
) -> Result<f64> {
    let start = now();
    for (group, (pixels, prompt)) in inputs.pixels.iter().zip(&inputs.prompts).enumerate() {
        let request = Generate {
            pixels: pixels.clone(),
            image_key: *blake3::hash(&group.to_le_bytes()).as_bytes(),
            prompt: prompt.as_slice().into(),
            given: Arc::from([]),
            candidates: setup.candidates,
            max_tokens: tokens,
            sampling: Sampling::Random {
                temperature: 1.0,
                top_p: None,
                top_k: None,
                seed: u64::from(pass),
            },
            stop: Stop::default(),
        };
        let written: Vec<Candidate> = generator.generate(request, None).await?;
        anyhow::ensure!(
            written.len() == setup.candidates.get()
                && written.iter().all(|candidate| candidate.tokens.len() == tokens.get()),
            "fewer tokens came than were asked for"
        );
    }
    Ok(start.elapsed().as_secs_f64())
}
