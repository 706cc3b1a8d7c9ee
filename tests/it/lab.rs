use crate::command::{json, mini, path, run, stderr, stdout};

/// Points of response accuracy that looking at the image must be worth.
const WORTH_OF_LOOKING: f64 = 0.10;

#[test]
fn the_trained_model_sees_on_scenes_it_was_not_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    stdout(&["scenes", "--split", "test", "--seed", "11", "--count", "80", "--out", path(&data)]);
    let seeing = json(&["eval", "--data", path(&data), "--format", "json"]);
    let blind = json(&["eval", "--data", path(&data), "--vision", "blank", "--format", "json"]);
    let accuracy = |report: &serde_json::Value| report["response_accuracy"].as_f64().unwrap();
    assert!(
        accuracy(&seeing) >= accuracy(&blind) + WORTH_OF_LOOKING,
        "seeing {}, blind {}",
        accuracy(&seeing),
        accuracy(&blind)
    );
    assert_eq!(seeing["responses"], 960);
    for key in ["token_accuracy", "sentence_accuracy", "map_neg", "map_pos"] {
        assert!((0.0..=1.0).contains(&seeing[key].as_f64().unwrap()), "{key}");
    }
    assert!(seeing["by_taxonomy"].as_object().unwrap().len() == 8);
}

#[test]
fn training_by_command_stops_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (runs, out, recipe) =
        (folder.path().join("run"), folder.path().join("out"), folder.path().join("recipe.json"));
    let stage = |kind: &str| {
        serde_json::json!({"kind": kind, "steps": 2, "images": 2, "responses": 2, "learning_rate": 1e-3,
            "warmup": 1, "weight_decay": 0.0, "clip": 1.0})
    };
    let text = serde_json::json!({
        "seed": 1, "lora": {"rank": 2, "alpha": 4.0},
        "architecture": {"image_size": 16, "patch_size": 8, "vision_hidden": 16, "vision_mlp": 16,
            "vision_layers": 1, "vision_heads": 2, "hidden": 16, "mlp": 16, "layers": 1, "heads": 2,
            "kv_heads": 1, "head_dim": 8},
        "stages": [stage("vision"), stage("pretrain"), stage("reward")]});
    std::fs::write(&recipe, text.to_string()).unwrap();
    let train = ["train", "--run", path(&runs), "--recipe", path(&recipe), "--out", path(&out)];
    let first = stdout(&[&train[..], &["--max-steps", "3"]].concat());
    assert!(first.contains("3 steps left"), "{first}");
    stdout(&train);
    let shown = stdout(&["inspect", "--model", path(&out)]);
    assert!(shown.contains("rank 2") && !shown.contains("WRONG"), "{shown}");
}

#[test]
fn an_adapter_for_a_model_folder_is_trained_on_a_data_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inside = |name: &str| folder.path().join(name);
    let (runs, out, recipe, data) =
        (inside("run"), inside("out"), inside("recipe.json"), inside("data"));
    stdout(&["scenes", "--split", "train", "--seed", "5", "--count", "3", "--out", path(&data)]);
    let text = serde_json::json!({"seed": 1, "lora": {"rank": 4, "alpha": 4.0}, "stages": [
        {"kind": "reward", "steps": 3, "images": 2, "responses": 3, "learning_rate": 1e-3,
         "warmup": 1, "weight_decay": 0.0, "clip": 1.0}]});
    std::fs::write(&recipe, text.to_string()).unwrap();
    let sources = ["--recipe", path(&recipe), "--from", path(&mini()), "--data", path(&data)]
        .map(str::to_owned);
    let train = |more: &[&str]| {
        let mut arguments = vec!["train"];
        arguments.extend(sources.iter().map(String::as_str));
        arguments.extend(["--run", path(&runs), "--out", path(&out)]);
        arguments.extend(more);
        run(&arguments)
    };
    let told = run(&[
        &["train", "--dry-run", "--format", "json"][..],
        &sources.each_ref().map(String::as_str),
    ]
    .concat());
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert!(told[0]["total_bytes"].as_u64() > told[0]["weight_bytes"].as_u64());
    assert!(!runs.exists(), "a dry run writes nothing");
    assert!(train(&["--max-steps", "1"]).status.success());
    let checkpoint = std::fs::metadata(runs.join("checkpoint.safetensors")).unwrap().len();
    let base = std::fs::metadata(mini().join("model.safetensors")).unwrap().len();
    assert!(checkpoint < base, "the base stays in its own folder");
    // Another data folder is another run.
    std::fs::write(data.join("data.jsonl"), "").unwrap();
    let refused = train(&[]);
    assert!(stderr(&refused).contains("another --from or --data"), "{}", stderr(&refused));
    stdout(&[
        "scenes",
        "--split",
        "train",
        "--seed",
        "5",
        "--count",
        "3",
        "--out",
        path(&inside("again")),
    ]);
    std::fs::copy(inside("again").join("data.jsonl"), data.join("data.jsonl")).unwrap();
    let done = train(&[]);
    assert!(done.status.success(), "{}", stderr(&done));
    let shown = stdout(&["inspect", "--model", path(&mini()), "--adapter", path(&out)]);
    assert!(shown.contains("rank 4") && !shown.contains("WRONG"), "{shown}");
    assert!(runs.join("loss.svg").exists());
}

#[test]
fn responses_about_scenes_are_judged_by_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    stdout(&["scenes", "--split", "test", "--seed", "3", "--count", "2", "--out", path(&data)]);
    let judged = stdout(&["scenes", "--judge", path(&data.join("data.jsonl"))]);
    let written = std::fs::read_to_string(data.join("data.jsonl")).unwrap();
    assert_eq!(judged.lines().count(), written.lines().count());
    for (judged, written) in judged.lines().zip(written.lines()) {
        let (judged, written): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(judged).unwrap(), serde_json::from_str(written).unwrap());
        let is_clean = written["labels"].as_array().unwrap().is_empty();
        assert_eq!(judged["group_id"], written["group_id"]);
        assert_eq!(judged["wrong"] == 0, is_clean, "{judged} of {written}");
        let sentences = judged["sentences"].as_array().unwrap();
        assert_eq!(sentences.iter().any(|s| s["truth"] == "false"), !is_clean);
        assert!(sentences.iter().all(|s| s["claim"].is_string()), "{judged}");
    }
    let odd = folder.path().join("odd.jsonl");
    std::fs::write(&odd, "{\"group_id\": \"photos\", \"response\": \"A cat.\"}\n").unwrap();
    let refused = run(&["scenes", "--judge", path(&odd)]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("SPLIT-SEED-INDEX-NAME"));
    assert_eq!(run(&["scenes"]).status.code(), Some(2), "neither draw nor judge");
}
