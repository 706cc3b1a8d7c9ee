use super::*;

/// As Llama-3.2-11B-Vision-Instruct has it, but for generation's fields.
const PUBLISHED: &str = r#"{
    "architectures": ["MllamaForConditionalGeneration"], "image_token_index": 128256,
    "model_type": "mllama",
    "text_config": {"cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38], "dropout": 0,
        "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 14336, "max_position_embeddings": 131072,
        "model_type": "mllama_text_model", "num_attention_heads": 32, "num_hidden_layers": 40,
        "num_key_value_heads": 8, "pad_token_id": 128004, "rms_norm_eps": 1e-05,
        "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500000.0, "vocab_size": 128256},
    "vision_config": {"attention_heads": 16, "hidden_act": "gelu", "hidden_size": 1280,
        "image_size": 560, "intermediate_layers_indices": [3, 7, 15, 23, 30],
        "intermediate_size": 5120, "max_num_tiles": 4, "model_type": "mllama_vision_model",
        "norm_eps": 1e-05, "num_channels": 3, "num_global_layers": 8, "num_hidden_layers": 32,
        "patch_size": 14, "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1],
        [2, 2], [3, 1], [4, 1]], "vision_output_dim": 7680}}"#;

fn problem(from: &str, to: &str) -> String {
    MllamaConfig::from_json(&PUBLISHED.replace(from, to)).unwrap_err()
}

#[test]
fn the_published_config_parses() {
    let config = MllamaConfig::from_json(PUBLISHED).unwrap();
    let (v, t) = (&config.vision_config, &config.text_config);
    assert_eq!((v.tile_tokens(), v.tile_rows(), v.image_tokens()), (1601, 1608, 6404));
    assert_eq!((v.head_dim(), t.head_dim(), t.self_attention_layers()), (80, 128, 32));
    assert_eq!(t.embedding_rows(), 128_264);
}

#[test]
fn what_is_omitted_has_the_class_defaults() {
    let bare = MllamaConfig::from_json(r#"{"model_type": "mllama"}"#).unwrap();
    assert_eq!(bare.vision_config.tile_tokens(), 1025);
    assert_eq!((bare.image_token_index, bare.vision_config.heads()), (128_256, 16));
    assert_eq!(bare.text_config.cross_attention_layers.len(), 8);
}

#[test]
fn transformers_5_keeps_the_base_with_the_scaling() {
    let five = PUBLISHED
        .replace("\"rope_scaling\": {", "\"rope_parameters\": {\"rope_theta\": 500000.0, ")
        .replace("\"rope_theta\": 500000.0, \"vocab_size\"", "\"vocab_size\"");
    let of = |text: &str| MllamaConfig::from_json(text).unwrap().text_config.rope_frequencies();
    assert_eq!(of(&five), of(PUBLISHED));
}

#[test]
fn nonsense_is_refused_by_field() {
    assert!(problem("\"mllama\"", "\"llama4\"").contains("model_type"));
    assert!(
        problem("\"vision_output_dim\": 7680", "\"vision_output_dim\": 7681")
            .contains("vision_output_dim")
    );
    assert!(problem("23, 30]", "23, 33]").contains("intermediate_layers_indices"));
    assert!(problem("[1, 1], [1, 2]", "[1, 2], [1, 1]").contains("supported_aspect_ratios"));
    assert!(problem("33, 38]", "33, 40]").contains("cross_attention_layers"));
    assert!(problem("\"llama3\"", "\"yarn\"").contains("rope_type"));
    assert!(problem("\"silu\"", "\"relu\"").contains("relu"));
    assert!(
        problem("\"num_key_value_heads\": 8", "\"num_key_value_heads\": 5")
            .contains("num_key_value_heads")
    );
    assert!(problem("\"image_size\": 560", "\"image_size\": 0").contains("image_size"));
    assert!(
        problem("\"image_token_index\": 128256", "\"image_token_index\": 128264")
            .contains("image_token_index")
    );
}
