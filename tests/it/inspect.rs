use std::fs;

use crate::command::{copy, json, mini, path, root, run, stdout};

#[test]
fn the_trained_model_has_no_faults() {
    let text = stdout(&["inspect"]);
    for part in
        ["PaliGemmaForConditionalGeneration", "adapter", "rank", "head", "version", "MiB", "F16"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(!text.contains("WRONG"), "{text}");
}

#[test]
fn every_fault_has_a_line() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("broken");
    copy(&mini(), &folder);
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    let output = run(&["inspect", "--model", path(&folder)]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text.matches("WRONG").count(), 2, "{text}");
    assert!(text.contains("tokenizer.json") && text.contains("model.safetensors"), "{text}");
}

#[test]
fn other_layouts_are_described_too() {
    let folder = root().join("tests/golden/paligemma/grouped_sharded");
    let output = run(&["inspect", "--model", path(&folder)]);
    let text = String::from_utf8(output.stdout).unwrap();
    // It has no tokenizer; the rest is told all the same.
    assert!(text.contains("3 files") && text.contains("WRONG"), "{text}");
}

#[test]
fn devices_are_listed_for_scripts() {
    let listing = json(&["inspect", "--devices", "--format", "json"]);
    // A driver, or why there is none.
    assert_ne!(listing["driver"].is_string(), listing["no_driver"].is_string(), "{listing}");
    let replicas = listing["replicas"].as_array().unwrap().len();
    assert!(replicas <= listing["devices"].as_array().unwrap().len());
}
