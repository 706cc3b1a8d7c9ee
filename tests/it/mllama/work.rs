//! `inspect` at the size of 11B, `merge` and `bench`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::{adapter, folder};
use crate::command::{copy, json, path, root, run, stdout};

/// As Llama-3.2-11B-Vision-Instruct has it, but for fields that say nothing of its size.
const PUBLISHED: &str = r#"{
    "architectures": ["MllamaForConditionalGeneration"], "image_token_index": 128256,
    "model_type": "mllama",
    "text_config": {"cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 131072, "model_type": "mllama_text_model",
        "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "vocab_size": 128256},
    "vision_config": {"attention_heads": 16, "hidden_act": "gelu", "hidden_size": 1280,
        "image_size": 560, "intermediate_layers_indices": [3, 7, 15, 23, 30],
        "intermediate_size": 5120, "max_num_tiles": 4, "model_type": "mllama_vision_model",
        "num_global_layers": 8, "num_hidden_layers": 32, "patch_size": 14,
        "vision_output_dim": 7680}}"#;

#[test]
fn inspect_tells_what_11b_takes_by_its_config_alone() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("config.json"), PUBLISHED).unwrap();
    let output = run(&["inspect", "--model", path(scratch.path()), "--format", "json"]);
    assert_eq!(output.status.code(), Some(1), "there are no weights");
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |what: &str| {
        let all = findings.as_array().unwrap();
        let found = all.iter().find(|f| f["what"] == what).unwrap_or_else(|| panic!("{what}"));
        found["bytes"].as_u64().unwrap()
    };
    // 32 layers of the text, keys and values, 8 heads of 128, four bytes.
    assert_eq!(of("K/V per token"), 32 * 2 * 8 * 128 * 4);
    // 4 tiles of 40 · 40 patches and a class, in pages of 64; 8 layers look at them.
    let image = (4 * (40 * 40 + 1_u64)).next_multiple_of(64) * 8 * 2 * 8 * 128 * 4;
    assert_eq!((of("K/V per image"), of("an image is kept as")), (image, image));
    // A layer of the text or on the image: q, o, k, v, and three matrices of the MLP.
    let text = 40 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14_336_u64);
    let tower = 40 * (4 * 1280 * 1280 + 2 * 1280 * 5120) + 3 * 14 * 14 * 1280;
    // Of a class and its patches, and of 4 tiles in 8 canvases and none.
    let positions = 1280 * (1601 + 9 * 4 * (1601 + 2));
    assert_eq!(of("weights take"), 4 * (text + tower + positions + 7680 * 4096));
    let output = run(&["inspect", "--model", path(scratch.path())]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("423624704 bytes (404.0 MiB), in f16 211812352"), "{text}");
}

/// Names and bytes of a folder's tensors, in one family of names.
fn tensors(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = fs::read(folder.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let all = tensors.tensors().into_iter();
    all.map(|(name, view)| (name, view.data().to_vec())).collect()
}

#[test]
fn a_merged_folder_is_the_base_at_tau_zero_and_holds_all_that_generation_takes() {
    let scratch = tempfile::tempdir().unwrap();
    let adapted = scratch.path().join("adapted");
    copy(&folder(), &adapted);
    adapter(&adapted.join("adapter"));
    fs::write(adapted.join("generation_config.json"), r#"{"eos_token_id": [1, 4]}"#).unwrap();
    let merge = |tau: &str, out: &Path| {
        let model = ["merge", "--model", path(&adapted), "--format", "json"];
        json(&[&model[..], &["--tau", tau, "--out", path(out)]].concat())
    };
    let (base, half) = (scratch.path().join("base"), scratch.path().join("half"));
    assert_eq!(merge("0", &base)["merged"], 0);
    assert_eq!(merge("0.5", &half)["merged"], 2);
    let (published, of_base, of_half) = (tensors(&folder()), tensors(&base), tensors(&half));
    assert!(published == of_base, "the base to the bit, names too");
    let changed: Vec<&String> =
        of_half.iter().filter(|(name, bytes)| of_base[*name] != **bytes).map(|(n, _)| n).collect();
    assert_eq!(
        changed,
        [
            "language_model.model.layers.0.self_attn.v_proj.weight",
            "language_model.model.layers.1.cross_attn.q_proj.weight"
        ]
    );
    for name in ["config.json", "tokenizer.json", "chat_template.json", "generation_config.json"] {
        assert_eq!(fs::read(half.join(name)).unwrap(), fs::read(adapted.join(name)).unwrap());
    }
    assert!(!half.join("reward_head.safetensors").exists() && !half.join("adapter").exists());
}

/// The golden inputs of the folder, as `sleuth bench` takes them, and their logits.
fn inputs(to: &Path) -> Vec<f32> {
    let file = fs::read(folder().join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&file).unwrap();
    let get = |name: &str| golden.tensor(name).unwrap();
    let (canvas, prompt, response) = (get("canvas"), get("prompt_ids"), get("response_ids.0"));
    let view = |tensor: &TensorView<'_>, before: usize| {
        let shape = [vec![1; before], tensor.shape().to_vec()].concat();
        (tensor.dtype(), shape, tensor.data().to_vec())
    };
    let parts = [
        ("pixel_values", view(&canvas, 1)),
        ("prompt_ids", view(&prompt, 1)),
        ("response_ids", view(&response, 2)),
    ];
    let views: HashMap<&str, TensorView<'_>> = parts
        .iter()
        .map(|(name, (dtype, shape, data))| {
            (*name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        })
        .collect();
    safetensors::serialize_to_file(views, None, to).unwrap();
    floats(get("logits.0").data())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect()
}

#[test]
fn bench_scores_appends_generates_and_predicts() {
    let scratch = tempfile::tempdir().unwrap();
    let (file, dump) = (scratch.path().join("inputs"), scratch.path().join("dump"));
    let want = inputs(&file);
    let (model, threads) = (folder(), ["--threads", "1", "--repeat", "1", "--format", "json"]);
    let bench =
        |more: &[&str]| json(&[&["bench", "--model", path(&model)], &threads[..], more].concat());
    let logits = || {
        let file = fs::read(&dump).unwrap();
        let dumped = SafeTensors::deserialize(&file).unwrap();
        let logits = dumped.tensor("logits").unwrap();
        assert_eq!((logits.dtype(), logits.shape()), (Dtype::F32, &[1, 1, want.len()][..]));
        floats(logits.data())
    };
    let whole = bench(&["--inputs", path(&file), "--dump", path(&dump)]);
    for (got, want) in logits().iter().zip(&want) {
        assert!((got - want).abs() < 2e-4, "{got} for {want}");
    }
    for figure in ["gflops", "weight_bytes", "predicted_pass_bytes"] {
        assert!(whole[figure].as_f64().unwrap() > 0.0, "{whole}");
    }
    let once = logits();
    bench(&["--inputs", path(&file), "--dump", path(&dump), "--chunk", "2"]);
    assert_eq!(logits(), once, "in pieces to the bit");
    let written = bench(&["--inputs", path(&file), "--generate", "3", "--candidates", "2"]);
    assert_eq!((&written["groups"], &written["tokens"]), (&1.into(), &3.into()));
    let mixed = ["bench", "--model", path(&model), "--mixed", "3", "--format", "json"];
    assert_eq!(json(&[&mixed[..], &["--threads", "1"]].concat())["batches"], 3);
    // Pixels that are no canvas.
    let mini = root().join("models/mini");
    let refused = run(&["bench", "--model", path(&mini), "--inputs", path(&file)]);
    assert!(!refused.status.success());
    assert!(stdout(&["inspect", "--model", path(&model)]).contains("K/V per image"));
}
