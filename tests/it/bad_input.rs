//! A clear error that names the field, an exit code, no panic, in bounded time.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use safetensors::tensor::{Dtype, TensorView};

use crate::command::{copy, mini, path, picture, run, stderr};

fn refused(output: &Output, parts: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

fn score_image(bytes: &[u8]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image");
    fs::write(&file, bytes).unwrap();
    run(&["score", "--image", path(&file), "--response", "A star."])
}

fn score_with(model: &Path) -> Output {
    let image = picture();
    run(&["score", "--image", path(&image), "--response", "A star.", "--model", path(model)])
}

/// A header that promises 20,000 × 20,000 pixels.
fn huge_png() -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(20_000_u32.to_be_bytes());
    header.extend(20_000_u32.to_be_bytes());
    header.extend([8, 6, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(&header);
    png.extend(crc32(&header).to_be_bytes());
    png.extend([0; 64]);
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| {
            (c >> 1) ^ (0xedb8_8320 & (0_u32.wrapping_sub(c & 1)))
        })
    })
}

#[test]
fn images_that_are_none_are_refused_by_field() {
    let good = fs::read(picture()).unwrap();
    refused(&score_image(&good[..good.len() / 2]), &["context.image.data", "image_damaged"]);
    refused(
        &score_image(b"just some words, no picture"),
        &["context.image.data", "image_format_unsupported"],
    );
    refused(&score_image(&huge_png()), &["context.image.data", "image_too_large"]);
    refused(&score_image(b""), &["context.image"]);
}

#[test]
fn responses_out_of_bounds_are_refused_by_field() {
    let image = picture();
    refused(
        &run(&["score", "--image", path(&image), "--response", ""]),
        &["response", "response_empty"],
    );
    // Too long for one argument of a command line, so by JSONL.
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("in.jsonl");
    let line = serde_json::json!({"id": "big", "image": image, "response": "a ".repeat(500_000)});
    fs::write(&lines, format!("{line}\n")).unwrap();
    let output = run(&["score", "--jsonl", path(&lines)]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["error"]["class"], "too_large");
    assert_eq!(result["error"]["reason"], "response_too_large");
}

#[test]
fn a_nul_byte_is_text_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("in.jsonl");
    let line = serde_json::json!({"id": "nul", "image": picture(), "response": "A\u{0}star."});
    fs::write(&lines, format!("{line}\n")).unwrap();
    let output = run(&["score", "--jsonl", path(&lines)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let covered =
        result["tokens"].as_array().unwrap().iter().map(|t| t["end"].as_u64().unwrap()).max();
    assert_eq!(covered, Some(7));
}

#[test]
fn damaged_models_are_refused_with_what_is_wrong() {
    let scratch = tempfile::tempdir().unwrap();
    let case = |name: &str| {
        let folder = scratch.path().join(name);
        copy(&mini(), &folder);
        folder
    };
    let missing = case("missing-shard");
    let index = serde_json::json!({"weight_map": {"a": "model-00001-of-00002.safetensors"}});
    fs::write(missing.join("model.safetensors.index.json"), index.to_string()).unwrap();
    refused(&score_with(&missing), &["model-00001-of-00002.safetensors", "missing"]);

    let cut = case("cut");
    let weights = fs::read(cut.join("model.safetensors")).unwrap();
    fs::write(cut.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    refused(&score_with(&cut), &["cut"]);

    let nan = case("nan");
    poison(&nan.join("model.safetensors"));
    refused(&score_with(&nan), &["not a finite number", "language_model"]);

    let headless = case("headless");
    fs::remove_file(headless.join("reward_head.safetensors")).unwrap();
    fs::remove_dir_all(headless.join("adapter")).unwrap();
    refused(&score_with(&headless), &["no reward head"]);

    let config = case("config");
    fs::write(config.join("config.json"), "{\"model_type\": \"paligemma\"}").unwrap();
    refused(&score_with(&config), &["config.json", "vision_config"]);
}

/// Makes one weight of the final norm NaN.
fn poison(file: &PathBuf) {
    let bytes = fs::read(file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut owned: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        .collect();
    let norm = owned
        .iter_mut()
        .find(|(name, ..)| name.ends_with("language_model.model.norm.weight"))
        .unwrap();
    assert_eq!(norm.1, Dtype::F16);
    norm.3[..2].copy_from_slice(&0x7e00_u16.to_le_bytes());
    let views: HashMap<&str, TensorView<'_>> = owned
        .iter()
        .map(|(name, dtype, shape, data)| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap())
        })
        .collect();
    safetensors::serialize_to_file(views, None, file).unwrap();
}

#[test]
fn an_unknown_folder_is_named() {
    refused(&run(&["inspect", "--model", "no/such/folder"]), &["--model", "no/such/folder"]);
    let image = picture();
    let output =
        run(&["score", "--image", path(&image), "--response", "A.", "--adapter", "no/adapter"]);
    refused(&output, &["--adapter", "no/adapter"]);
    let output = run(&["score", "--image", "no/picture.png", "--response", "A."]);
    refused(&output, &["--image", "no/picture.png"]);
}
