//! Llama 3.2 Vision, from files to rewards: a tiny random model with a tokenizer, a chat template and a
//! preprocessor, held to what transformers makes of the same files (`tests/golden/make_mllama_inputs.py`).

mod correct;
mod swap;
mod work;

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;
use sleuth_client::Client;
use sleuth_core::{ImageSource, ScoreRequest};

use crate::command::{copy, json, path, root, run, stderr, stdout};
use crate::server::Server;
use crate::streams::{bits, in_pieces};

fn folder() -> PathBuf {
    root().join("tests/golden/mllama/instruct")
}

/// Writes an adapter for the folder's model: rank 1 on a layer of the text and one on the image.
fn adapter(to: &Path) {
    fs::create_dir_all(to).unwrap();
    let config = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 2}"#;
    fs::write(to.join("adapter_config.json"), config).unwrap();
    let ramp = |rows: usize, columns: usize| {
        let values = (0..rows * columns).map(|i| ((i % 7) as f32 - 3.0) / 4.0);
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        (vec![rows, columns], bytes)
    };
    // Width 32; two heads of 16, one of them for keys and values.
    let layers = [("0.self_attn.v_proj", 16), ("1.cross_attn.q_proj", 32)];
    let tensors = layers.map(|(module, outputs)| {
        let name = |half| format!("base_model.model.language_model.model.layers.{module}.{half}");
        [(name("lora_A.weight"), ramp(1, 32)), (name("lora_B.weight"), ramp(outputs, 1))]
    });
    let views = tensors.iter().flatten().map(|(name, (shape, bytes))| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let file = to.join("adapter_model.safetensors");
    safetensors::serialize_to_file(views, None, &file).unwrap();
}

struct Case {
    image: Vec<u8>,
    prompt: String,
    response: String,
    logits: Vec<f64>,
}

fn cases() -> Vec<Case> {
    let file = fs::read(folder().join("self_test.json")).unwrap();
    let test: Value = serde_json::from_slice(&file).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let case = |case: &Value| Case {
        image: STANDARD.decode(text(&case["image"])).unwrap(),
        prompt: text(&case["prompt"]),
        response: text(&case["response"]),
        logits: case["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect(),
    };
    test["cases"].as_array().unwrap().iter().map(case).collect()
}

#[test]
fn files_and_texts_get_the_logits_of_transformers() {
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image.png");
    let cases = cases();
    assert_eq!(cases.len(), 3);
    for case in cases {
        fs::write(&image, &case.image).unwrap();
        let item = json(&[
            "score",
            "--model",
            path(&folder()),
            "--image",
            path(&image),
            "--prompt",
            &case.prompt,
            "--response",
            &case.response,
            "--format",
            "json",
        ]);
        let tokens = item["tokens"].as_array().unwrap();
        assert_eq!(tokens.len(), case.logits.len());
        for (token, want) in tokens.iter().zip(&case.logits) {
            let off = (token["logit"].as_f64().unwrap() - want).abs();
            assert!(off < 2e-4, "{token} is off by {off}");
        }
    }
}

#[test]
fn inspect_tells_what_it_is_and_what_it_takes() {
    let text = stdout(&["inspect", "--model", path(&folder())]);
    for part in
        ["MllamaForConditionalGeneration", "up to 4 tiles", "K/V per image", "BF16", "401 tokens"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(!text.contains("WRONG"), "{text}");
}

#[test]
fn a_preprocessor_or_a_template_that_does_not_belong_to_the_model_is_told() {
    for (file, from, to, told) in [
        (
            "preprocessor_config.json",
            "MllamaImageProcessor",
            "SiglipImageProcessor",
            "up to 4 tiles",
        ),
        (
            "preprocessor_config.json",
            "\"max_image_tiles\": 4",
            "\"max_image_tiles\": 2",
            "up to 2 tiles",
        ),
        ("chat_template.json", "content['text']", "content['txet']", "0 times"),
        ("reward_config.json", "{", "{\"suffix_attention\": \"full\",", "suffix_attention"),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let broken = scratch.path().join("broken");
        copy(&folder(), &broken);
        let text = fs::read_to_string(broken.join(file)).unwrap();
        let changed = text.replacen(from, to, 1).replace("\"do_pad\": true,", "\"do_pad\": null,");
        assert_ne!(text, changed);
        fs::write(broken.join(file), changed).unwrap();
        let output = run(&[
            "score",
            "--model",
            path(&broken),
            "--image",
            "docs/scene.png",
            "--response",
            "x",
        ]);
        assert!(!output.status.success());
        assert!(stderr(&output).contains(told), "{told:?} is not in {}", stderr(&output));
    }
}

#[tokio::test]
async fn a_server_proves_itself_and_a_response_in_pieces_has_the_bits_of_the_whole() {
    let model = folder();
    let layout = ["--workers", "2", "--threads", "1"];
    let mut server = Server::start(None, &[&["--model", path(&model)], &layout[..]].concat());
    let client = Client::connect(server.url()).await.unwrap();
    let card = client.model().await.unwrap();
    assert_eq!(card.architecture, "MllamaForConditionalGeneration");
    for case in cases() {
        let image = Bytes::from(case.image);
        let whole = client.score(ScoreRequest::new(image.clone(), &case.response)).await.unwrap();
        for step in [1, 3, 7, 1000] {
            let source = ImageSource::Data(image.clone());
            let (streamed, scored) = in_pieces(&client, source, &case.response, step).await;
            assert_eq!(bits(&streamed), bits(&whole.tokens));
            assert_eq!(scored.reward.to_bits(), whole.reward.to_bits());
        }
    }
    assert!(server.terminate().success());
}
