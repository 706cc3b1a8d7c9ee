//! The contract's "same bits": the reward of a token depends on image, prompt and response up to
//! it, and on nothing else that the engine decides.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use sleuth_models::cpu::KvType;
use sleuth_models::mllama::MllamaFolder;
use sleuth_models::{LoadError, LoadOptions, ModelFolder};
use tokio::runtime;

use super::*;
use crate::{Engine, EngineError, EngineSettings, Terms};

#[derive(Clone, Copy, Debug)]
enum Architecture {
    PaliGemma,
    Mllama,
}

/// How an engine is laid out for a run.
#[derive(Clone, Copy, Debug)]
struct Layout {
    architecture: Architecture,
    workers: usize,
    threads: usize,
    kv: KvType,
    prefix_bytes: u64,
    open_bytes: u64,
    batch_items: usize,
}

/// One response, and how it is sent.
#[derive(Clone, Debug)]
struct Sent {
    image: u8,
    prompt: usize,
    tokens: Vec<u32>,
    /// Where it is cut; whole where `None`.
    cuts: Option<Vec<prop::sample::Index>>,
}

const ALONE: Layout = Layout {
    architecture: Architecture::PaliGemma,
    workers: 1,
    threads: 1,
    kv: KvType::F32,
    prefix_bytes: 0,
    open_bytes: 1 << 20,
    batch_items: 1,
};

async fn engine(layout: Layout) -> Engine {
    let Layout { workers, threads, prefix_bytes, .. } = layout;
    let pool = PoolSettings { workers, threads, prefix_bytes, vision_bytes: prefix_bytes };
    let settings = EngineSettings {
        max_batch_items: layout.batch_items,
        max_open_bytes: layout.open_bytes,
        ..EngineSettings::default()
    };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let options = LoadOptions::default();
    let started = match layout.architecture {
        Architecture::PaliGemma => {
            let load = move || {
                let opened = ModelFolder::open(&golden.join("paligemma/many_kv_heads"), &options)?;
                let model = opened.load_cpu(layout.kv)?;
                BackboneWorker::pool(model, "v1", pool).map_err(LoadError::Threads)
            };
            Engine::start(load, settings).await
        }
        Architecture::Mllama => {
            let load = move || {
                let opened = MllamaFolder::open(&golden.join("mllama/wide_image"), &options)?;
                let model = opened.load_cpu(layout.kv)?;
                BackboneWorker::pool(model, "v1", pool).map_err(LoadError::Threads)
            };
            Engine::start(load, settings).await
        }
    };
    started.unwrap()
}

fn prepared(architecture: Architecture, sent: &Sent) -> Prepared {
    const MLLAMAS_IMAGE: u32 = 160;
    let (height, width, prompt) = match architecture {
        Architecture::PaliGemma => (28, 28, (2..3 + sent.prompt as u32).collect()),
        Architecture::Mllama => {
            let (height, width) = [(28, 28), (28, 84), (56, 56)][usize::from(sent.image)];
            let mut prompt: Vec<u32> = (5..8 + sent.prompt as u32).collect();
            // Now with text before the image, now without.
            prompt.insert(sent.prompt, MLLAMAS_IMAGE);
            (height, width, prompt.into())
        }
    };
    let shade = f32::from(sent.image) / 4.0 - 0.5;
    let pixels = (0..3 * height * width).map(|i| shade + (i % 7) as f32 / 20.0).collect::<Vec<_>>();
    Prepared {
        pixels: Pixels::try_new(height, width, pixels.into()).unwrap(),
        image_key: [sent.image; 32],
        prompt,
        response: sent.tokens.clone().into(),
    }
}

/// The bits of one response's logits, sent as it says.
async fn score(
    engine: Engine,
    architecture: Architecture,
    sent: Sent,
) -> Result<Vec<u32>, EngineError> {
    let item = prepared(architecture, &sent);
    let Some(cuts) = &sent.cuts else {
        let scores = engine.submit(item, Terms::default(), None).await?;
        return Ok(scores.logits.into_iter().map(f32::to_bits).collect());
    };
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(sent.tokens.len() + 1)).collect();
    at.push(sent.tokens.len());
    at.sort_unstable();
    let Prepared { pixels, image_key, prompt, .. } = item;
    let (mut open, _) = engine.open(pixels, image_key, prompt, Terms::default(), None)?;
    let (mut logits, mut from) = (Vec::new(), 0);
    for to in at {
        logits.extend(open.append(sent.tokens[from..to].into(), None).await?.logits);
        from = to;
    }
    Ok(logits.into_iter().map(f32::to_bits).collect())
}

/// All at once, each from a task of its own.
fn run(layout: Layout, items: &[Sent]) -> Vec<Vec<u32>> {
    runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
        let engine = engine(layout).await;
        let tasks: Vec<_> = items
            .iter()
            .map(|sent| tokio::spawn(score(engine.clone(), layout.architecture, sent.clone())))
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.push(task.await.unwrap().unwrap());
        }
        assert!(engine.shutdown(Duration::from_mins(1)).await.stopped);
        all
    })
}

fn sent() -> impl Strategy<Value = Sent> {
    let cuts = prop::option::of(prop::collection::vec(any::<prop::sample::Index>(), 0..4));
    (0u8..3, 0usize..4, prop::collection::vec(2u32..150, 1..40), cuts)
        .prop_map(|(image, prompt, tokens, cuts)| Sent { image, prompt, tokens, cuts })
}

fn layout() -> impl Strategy<Value = Layout> {
    (1usize..=4, 1usize..=3, prop::sample::select(vec![0, 40_000, 1 << 30]), 1usize..9)
        .prop_flat_map(|(workers, threads, prefix_bytes, batch_items)| {
            prop::sample::select(vec![0u64, 20_000, 1 << 30]).prop_map(move |open_bytes| Layout {
                architecture: Architecture::PaliGemma,
                workers,
                threads,
                kv: KvType::F32,
                prefix_bytes,
                open_bytes,
                batch_items,
            })
        })
}

fn each_alone_has_the_bits_of_all_together(
    items: &[Sent],
    layout: Layout,
) -> Result<(), TestCaseError> {
    let Layout { architecture, kv, .. } = layout;
    let whole: Vec<Sent> = items.iter().map(|sent| Sent { cuts: None, ..sent.clone() }).collect();
    let want: Vec<Vec<u32>> = whole
        .iter()
        .flat_map(|sent| run(Layout { architecture, kv, ..ALONE }, std::slice::from_ref(sent)))
        .collect();
    prop_assert_eq!(run(layout, items), want);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn neighbours_cuts_workers_threads_and_caches_change_no_bit(
        items in prop::collection::vec(sent(), 1..14),
        layout in layout(),
        f16: bool,
    ) {
        let kv = if f16 { KvType::F16 } else { KvType::F32 };
        each_alone_has_the_bits_of_all_together(&items, Layout { kv, ..layout })?;
    }

    #[test]
    fn neighbours_cuts_workers_threads_and_caches_change_no_bit_of_mllamas(
        items in prop::collection::vec(sent(), 1..14),
        layout in layout(),
        f16: bool,
    ) {
        let kv = if f16 { KvType::F16 } else { KvType::F32 };
        let architecture = Architecture::Mllama;
        each_alone_has_the_bits_of_all_together(&items, Layout { architecture, kv, ..layout })?;
    }
}
