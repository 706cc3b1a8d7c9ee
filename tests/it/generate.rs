//! `sleuth merge`, and the corrector that writes by itself.

use std::fs;

use serde_json::Value;

use crate::command::{copy, json, mini, path, picture, run, stderr};

/// The scene's heart is white.
const WRONG: &str =
    "The blue triangle is on the left. The large heart is red. There is a triangle.";

#[test]
fn a_merged_folder_holds_the_backbone_and_comes_whole_or_not_at_all() {
    let scratch = tempfile::tempdir().unwrap();
    let (base, half) = (scratch.path().join("base"), scratch.path().join("half"));
    let merge = |tau: &str, out| json(&["merge", "--tau", tau, "--out", out, "--format", "json"]);
    let told = merge("0", path(&base));
    assert_eq!((&told["tau"], &told["merged"]), (&Value::from(0.0), &Value::from(0)));
    assert!(merge("0.5", path(&half))["merged"].as_u64().unwrap() > 0);
    let weights = |folder: &std::path::Path| fs::read(folder.join("model.safetensors")).unwrap();
    let (of_mini, of_base, of_half) = (weights(&mini()), weights(&base), weights(&half));
    let tensors = |file: &[u8]| -> Vec<(String, Vec<u8>)> {
        let file = safetensors::SafeTensors::deserialize(file).unwrap();
        let all = file.tensors().into_iter();
        let mut all: Vec<_> = all.map(|(name, view)| (name, view.data().to_vec())).collect();
        all.sort();
        all
    };
    assert_eq!(tensors(&of_base), tensors(&of_mini), "the base to the bit");
    assert_ne!(tensors(&of_half), tensors(&of_mini));
    for name in ["config.json", "tokenizer.json", "preprocessor_config.json"] {
        assert_eq!(fs::read(half.join(name)).unwrap(), fs::read(mini().join(name)).unwrap());
    }
    assert!(!half.join("reward_head.safetensors").exists() && !half.join("adapter").exists());
    let again = run(&["merge", "--tau", "1", "--out", path(&half)]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("name another folder"), "{}", stderr(&again));
    assert_eq!(weights(&half), of_half);
    let bare = scratch.path().join("bare");
    copy(&base, &bare);
    let out = scratch.path().join("out");
    let none = run(&["merge", "--tau", "1", "--model", path(&bare), "--out", path(&out)]);
    assert_eq!(none.status.code(), Some(1));
    assert!(stderr(&none).contains("--adapter DIR"), "{}", stderr(&none));
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 3, "nothing is left of failed runs");
}

#[test]
fn the_builtin_corrector_changes_flagged_words_alone() {
    let image = picture();
    let base = ["correct", "--image", path(&image), "--response", WRONG, "--format", "json"];
    let corrected = json(&[&base[..], &["--candidates", "8"]].concat());
    let response = corrected["response"].as_str().unwrap();
    assert!(response.starts_with("The blue triangle is on the left. The large heart is "));
    assert!(response.ends_with(". There is a triangle."), "{response}");
    assert!(corrected["rounds"].as_u64().unwrap() >= 1);
}

#[test]
fn a_backbone_that_does_not_fit_is_refused_with_the_figure() {
    let image = picture();
    let base = ["correct", "--image", path(&image), "--response", WRONG];
    let refused = run(&[&base[..], &["--corrector-memory", "1"]].concat());
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert!(
        said.contains("where 1 MiB are allowed") && said.contains("--corrector-memory"),
        "{said}"
    );
}
