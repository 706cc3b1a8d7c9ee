use crate::command::{json, path, stdout};

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
