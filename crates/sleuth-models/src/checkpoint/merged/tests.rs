use super::*;
use crate::cpu::{KvType, NewPrefix, Workspace};
use sleuth_core::Pixels;

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn with_adapter(folder: &Path, tau: f64) -> LoadOptions {
    LoadOptions { adapter: Some(folder.join("adapter")), tau }
}

/// State after the last prompt row.
fn state(opened: &BackboneFolder) -> Vec<f32> {
    let model = opened.load_language(KvType::F32).unwrap();
    let mut space = Workspace::new(1).unwrap();
    let side = opened.config.image_side();
    let values: Vec<f32> = (0..3 * side * side).map(|i| (i % 61) as f32 / 30.5 - 1.0).collect();
    let pixels = Pixels::try_new(side as u32, side as u32, values.into()).unwrap();
    let features = model.see(&mut space, &pixels).unwrap();
    let prompt: Vec<u32> = opened.config.image_in_prompt().into_iter().chain([2, 7, 9]).collect();
    let prefix = NewPrefix { features: &features, prompt: &prompt };
    model.prefill(&mut space, prefix).unwrap().1
}

#[test]
fn tau_zero_is_the_base_to_the_bit_under_published_names() {
    for name in [
        "paligemma/adapter_wide_rank",
        "paligemma/adapter_rslora",
        "paligemma/adapter_patterns",
        "paligemma/v5_names",
        "mllama/adapter_wide_rank",
        "mllama/adapter_rslora",
        "mllama/tall_image",
    ] {
        let folder = case(name);
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("merged");
        let adapter = Some(folder.join("adapter")).filter(|a| a.exists());
        let merged = write_merged(&folder, &LoadOptions { adapter, tau: 0.0 }, &out).unwrap();
        assert_eq!(merged.merged, 0);
        let (base, written) = (Checkpoint::open(&folder).unwrap(), Checkpoint::open(&out).unwrap());
        assert_eq!(written.tensors().len(), merged.tensors);
        for (tensor, _, _) in base.tensors() {
            // PaliGemma's is the embedding.
            if !tensor.starts_with("lm_head.") || name.starts_with("mllama") {
                assert_eq!(
                    written.stored(&tensor).unwrap(),
                    base.stored(&tensor).unwrap(),
                    "{name}: {tensor}"
                );
            }
        }
        let file = fs::read(out.join(WEIGHTS)).unwrap();
        let names = safetensors::SafeTensors::deserialize(&file).unwrap();
        for name in names.names() {
            let families = [
                "language_model.model.",
                "language_model.lm_head.",
                "vision_tower.vision_model.",
                "vision_model.",
                "multi_modal_projector.",
            ];
            assert!(families.iter().any(|family| name.starts_with(family)), "{name}");
        }
    }
}

#[test]
fn tau_one_is_the_adapters_forward_and_keeps_the_stored_type() {
    for (name, tolerance) in [
        ("paligemma/adapter_wide_rank", 2e-2),
        ("paligemma/adapter_rslora", 2e-2),
        ("paligemma/adapter_patterns", 1e-2),
        ("mllama/adapter_wide_rank", 2e-2),
        ("mllama/adapter_rslora", 3e-2),
    ] {
        let folder = case(name);
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("merged");
        let options = with_adapter(&folder, 1.0);
        let merged = write_merged(&folder, &options, &out).unwrap();
        assert!(merged.merged > 0);
        let adapted = state(&BackboneFolder::open(&folder, &options).unwrap());
        let alone = BackboneFolder::open(&out, &LoadOptions::default()).unwrap();
        let base = state(&BackboneFolder::open(&folder, &LoadOptions::default()).unwrap());
        let off = |a: &[f32], b: &[f32]| -> f32 {
            a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let exact = alone.checkpoint.tensors().iter().all(|(_, dtype, _)| dtype == "F32");
        let tolerance = if exact { 1e-5 } else { tolerance };
        let found = off(&state(&alone), &adapted);
        assert!(found <= tolerance, "{name} is off by {found}");
        assert!(off(&base, &adapted) > 10.0 * found.max(1e-4), "{name}: the adapter does little");
        let types = |folder: &BackboneFolder| -> HashMap<String, String> {
            folder.checkpoint.tensors().into_iter().map(|(name, dtype, _)| (name, dtype)).collect()
        };
        let base = types(&BackboneFolder::open(&folder, &LoadOptions::default()).unwrap());
        assert!(types(&alone).iter().all(|(name, dtype)| base[name] == *dtype));
    }
}

#[test]
fn a_failed_merge_leaves_nothing_and_an_old_folder_is_kept() {
    let folder = case("paligemma/adapter_wide_rank");
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("merged");
    let other =
        LoadOptions { adapter: Some(case("paligemma/many_kv_heads").join("adapter")), tau: 1.0 };
    assert!(write_merged(&folder, &other, &out).is_err());
    // A delta of 1e38 and more leaves the stored type's range.
    assert!(write_merged(&folder, &with_adapter(&folder, 1e300), &out).is_err());
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    fs::create_dir(&out).unwrap();
    let error = write_merged(&folder, &with_adapter(&folder, 1.0), &out).unwrap_err();
    assert!(matches!(error, LoadError::Exists { .. }), "{error}");
}

#[test]
fn every_published_name_is_read_back_as_itself() {
    for name in [
        "language_model.layers.0.mlp.up_proj.weight",
        "language_model.layers.3.cross_attn_attn_gate",
        "vision_model.global_transformer.layers.0.gate_attn",
        "multi_modal_projector.bias",
        "vision_tower.post_layernorm.bias",
        "multi_modal_projector.linear.bias",
        "lm_head.weight",
    ] {
        assert_eq!(super::super::canonical_name(&published_name(name)), name);
    }
}
