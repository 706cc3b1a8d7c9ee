//! How much is held between batches.

use sleuth_engine::PoolSettings;
use sleuth_models::cpu::ModelSizes;

use crate::arguments::EngineArguments;
use crate::environment;

/// Held at least, where nobody says how much.
const PREFIX_BYTES: u64 = 1 << 30;
const VISION_BYTES: u64 = 1 << 28;
/// Images and prefixes of the model for which there is room then.
const HELD: u64 = 4;
/// Tokens of such a prefix's prompt.
const PROMPT: usize = 256;

/// The workers and caches that the arguments ask for; what they leave open follows the model. A cache
/// that holds nothing of the model is told: scores are right, but all of it is computed anew.
pub(super) fn pool(arguments: EngineArguments, sizes: &ModelSizes) -> PoolSettings {
    let EngineArguments { workers, threads, prefix_cache, vision_cache, .. } = arguments;
    let settings = PoolSettings {
        workers,
        threads: threads.unwrap_or_else(|| (environment::cores() / workers).max(1)),
        prefix_bytes: bytes(prefix_cache, PREFIX_BYTES, sizes.prefix_bytes(PROMPT)),
        vision_bytes: bytes(vision_cache, VISION_BYTES, sizes.features_bytes),
    };
    for too_small in too_small(&settings, sizes) {
        tracing::warn!("{too_small}");
    }
    settings
}

fn bytes(mebibytes: Option<u64>, least: u64, one: u64) -> u64 {
    mebibytes.map_or_else(|| least.max(HELD * one), |n| n.saturating_mul(1 << 20))
}

/// What is said of caches that are on and hold nothing.
fn too_small(settings: &PoolSettings, sizes: &ModelSizes) -> Vec<String> {
    let caches = [
        ("--prefix-cache", settings.prefix_bytes, sizes.prefix_bytes(1), "prefix"),
        ("--vision-cache", settings.vision_bytes, sizes.features_bytes, "image"),
    ];
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    caches
        .into_iter()
        .filter(|&(_, held, one, _)| held > 0 && held < one)
        .map(|(flag, held, one, what)| {
            let (held, one) = (held >> 20, mib(one));
            format!("{flag} {held} holds nothing: one {what} of this model takes up to {one} MiB")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use sleuth_models::ModelConfig;
    use sleuth_models::cpu::KvType;

    use super::*;
    use crate::arguments::{DeviceArguments, Kv};

    /// Llama-3.2-11B-Vision: 6,404 states of an image, 101 pages of 64 in 8 layers of 8 heads of 128.
    const IMAGE: u64 = 101 * 64 * 8 * 8 * 2 * 128 * 4;

    fn sizes() -> ModelSizes {
        let config = r#"{"model_type": "mllama", "vision_config": {"image_size": 560}}"#;
        ModelConfig::from_json(config).unwrap().sizes(KvType::F32)
    }

    fn arguments(prefix_cache: Option<u64>, vision_cache: Option<u64>) -> EngineArguments {
        let (workers, threads, kv, on) = (1, Some(1), Kv::F32, DeviceArguments::CPU);
        EngineArguments { workers, threads, kv, prefix_cache, vision_cache, on }
    }

    #[test]
    fn caches_that_nobody_set_have_room_for_some_images_of_the_model() {
        let sizes = sizes();
        let settings = pool(arguments(None, None), &sizes);
        assert_eq!(settings.vision_bytes, 4 * IMAGE);
        assert!(settings.prefix_bytes > 4 * IMAGE);
        assert!(too_small(&settings, &sizes).is_empty());
        let small =
            ModelSizes { image_bytes: 0, features_bytes: 1 << 20, kv_page_bytes: 1, ..sizes };
        let settings = pool(arguments(None, None), &small);
        assert_eq!((settings.prefix_bytes, settings.vision_bytes), (1 << 30, 1 << 28));
    }

    #[test]
    fn a_cache_that_is_too_small_for_one_image_is_told_with_the_figure() {
        let sizes = sizes();
        let told = |prefix, vision| {
            let settings = pool(arguments(Some(prefix), Some(vision)), &sizes);
            too_small(&settings, &sizes)
        };
        assert_eq!(
            told(2048, 256),
            ["--vision-cache 256 holds nothing: one image of this model takes up to 404 MiB"]
        );
        assert!(told(256, 1024)[0].starts_with("--prefix-cache 256 holds nothing: one prefix"));
        assert!(told(0, 0).is_empty(), "who wants no cache is not warned");
        assert!(told(1024, 404).is_empty());
    }
}
