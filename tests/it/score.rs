use crate::command::{json, path, picture, root, stdout};

const RESPONSE: &str = "There are two objects. A café 🙂 is left of a small star.";

#[test]
fn one_item_gives_the_contracts_object() {
    let image = picture();
    let item =
        json(&["score", "--image", path(&image), "--response", RESPONSE, "--format", "json"]);
    let tokens = item["tokens"].as_array().unwrap();
    let mut end = 0;
    for token in tokens {
        let (start, stop) = (token["start"].as_u64().unwrap(), token["end"].as_u64().unwrap());
        let text = &RESPONSE[start as usize..stop as usize];
        assert_eq!(token["text"], text);
        assert!(start <= end, "a gap before {text:?}");
        end = end.max(stop);
        let (reward, logit) = (token["reward"].as_f64().unwrap(), token["logit"].as_f64().unwrap());
        assert!((reward - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-6);
    }
    assert_eq!(end as usize, RESPONSE.len());
    assert_eq!(item["sentences"].as_array().unwrap().len(), 2);
    let reward = item["response"]["reward"].as_f64().unwrap();
    let logs: f64 = tokens.iter().map(|t| t["reward"].as_f64().unwrap().ln()).sum();
    assert!((reward - (logs / tokens.len() as f64).exp()).abs() < 1e-4);
    assert_eq!(item["response"]["aggregation"], "mean_log");
    assert_eq!(item["model"]["name"], "mini");
    assert_eq!(item["model"]["version"].as_str().unwrap().len(), 64);
    assert!(item["timing_ms"]["compute"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_same_item_has_the_same_reward_in_every_run_and_format() {
    let image = picture();
    let arguments = ["score", "--image", path(&image), "--response", RESPONSE];
    let one = json(&[&arguments[..], &["--format", "json"]].concat());
    let two = json(&[&arguments[..], &["--format", "json"]].concat());
    assert_eq!(one["tokens"], two["tokens"]);
    let table = stdout(&[&arguments[..], &["--format", "table"]].concat());
    assert_eq!(table.lines().count(), one["tokens"].as_array().unwrap().len() + 1);
    let pretty = stdout(&arguments);
    assert!(pretty.contains("(mean_log)") && !pretty.contains('\x1b'), "{pretty}");
}

#[test]
fn aggregations_and_thresholds_are_obeyed() {
    let image = picture();
    let with = |more: &[&str]| {
        let base = ["score", "--image", path(&image), "--response", RESPONSE, "--format", "json"];
        json(&[&base[..], more].concat())["response"].clone()
    };
    let all = with(&["--threshold", "1", "--aggregation", "count_below"]);
    let none = with(&["--threshold", "0", "--aggregation", "product_bits"]);
    assert!(all["reward"].as_f64().unwrap() > 5.0);
    assert_eq!(all["flagged"].as_array().unwrap().len(), 1, "one run of all tokens");
    assert_eq!(none["reward"], 1.0);
    assert_eq!(none["flagged"].as_array().unwrap().len(), 0);
}

/// `tests/golden/make_mini.py`.
const GOLDEN_RESPONSES: [&str; 3] = [
    "There are two objects. A small red star is left of a blue ring.",
    "The large green square is at the top.",
    "There is no heart.",
];

#[test]
fn the_trained_model_agrees_with_transformers_and_peft() {
    let file = std::fs::read(root().join("tests/golden/mini.safetensors")).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&file).unwrap();
    let image = picture();
    for (r, response) in GOLDEN_RESPONSES.iter().enumerate() {
        let view = golden.tensor(&format!("logits.{r}")).unwrap();
        let want: Vec<f32> =
            view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let item =
            json(&["score", "--image", path(&image), "--response", response, "--format", "json"]);
        let tokens = item["tokens"].as_array().unwrap();
        assert_eq!(tokens.len(), want.len());
        for (token, want) in tokens.iter().zip(want) {
            let got = token["logit"].as_f64().unwrap();
            assert!((got - f64::from(want)).abs() < 5e-4, "{} {got} {want}", token["text"]);
        }
    }
}
