use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor};
use serde_json::json;

use super::run::Run;
use crate::scenes::CAPTION_PROMPT;

/// What [`export`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exported {
    /// A model folder.
    Model,
    /// An adapter folder, for the model that the run started from.
    Adapter,
}

/// Writes a finished run in f16, in the layout that transformers and PEFT load: a model folder, and
/// where a reward stage was run, `adapter/` with the TLDR adapter and its head; or the adapter alone
/// where the base was taken from a folder and left as it is.
pub fn export(run: &Run, folder: &Path) -> Result<Exported> {
    ensure!(run.is_done(), "the run has stages left; finish it first");
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    if run.adapter_alone {
        write_adapter(run, folder)?;
        return Ok(Exported::Adapter);
    }
    write_base(run, folder)?;
    if run.lora.iter().next().is_none() {
        return Ok(Exported::Model);
    }
    let adapter = folder.join("adapter");
    fs::create_dir_all(&adapter).with_context(|| format!("create {}", adapter.display()))?;
    write_adapter(run, &adapter)?;
    Ok(Exported::Model)
}

fn write_base(run: &Run, folder: &Path) -> Result<()> {
    let mut weights = HashMap::new();
    let mut head = HashMap::new();
    for (name, var) in run.base.iter() {
        if name.starts_with("score.") {
            head.insert(name.clone(), var.as_tensor().clone());
        } else if !name.starts_with("patch_head.") {
            weights.insert(published_name(name), var.to_dtype(DType::F16)?);
        }
    }
    save(&weights, &folder.join("model.safetensors"))?;
    save(&head, &folder.join("reward_head.safetensors"))?;
    let mut config = serde_json::to_value(&run.config)?;
    config["hidden_size"] = json!(run.config.text_config.hidden_size);
    config["text_config"]["hidden_activation"] = json!("gelu_pytorch_tanh");
    config["vision_config"]["model_type"] = json!("siglip_vision_model");
    config["vision_config"]["projection_dim"] = json!(run.config.projection_dim);
    config["vision_config"]["vision_use_head"] = json!(false);
    config["torch_dtype"] = json!("float16");
    config["bos_token_id"] = json!(2);
    config["eos_token_id"] = json!(1);
    config["pad_token_id"] = json!(0);
    write_json(&folder.join("config.json"), &config)?;
    fs::write(folder.join("tokenizer.json"), &run.tokenizer_json)?;
    fs::write(folder.join("preprocessor_config.json"), &run.preprocessor_json)?;
    write_json(
        &folder.join("tokenizer_config.json"),
        &json!({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>",
                "pad_token": "<pad>", "unk_token": "<unk>", "add_bos_token": false,
                "clean_up_tokenization_spaces": false, "model_max_length": 1024}),
    )?;
    write_json(
        &folder.join("reward_config.json"),
        &json!({"prompt": CAPTION_PROMPT, "threshold": 0.5, "suffix_attention": "causal",
                "metadata": {"trained_by": "sleuth train", "recipe": run.recipe}}),
    )
}

fn write_adapter(run: &Run, folder: &Path) -> Result<()> {
    let mut tensors = HashMap::new();
    for (name, var) in run.lora.iter() {
        let path = if name.starts_with("score.") { name.clone() } else { in_memory_name(name) };
        tensors.insert(format!("base_model.model.{path}"), var.to_dtype(DType::F16)?);
    }
    save(&tensors, &folder.join("adapter_model.safetensors"))?;
    write_json(
        &folder.join("adapter_config.json"),
        &json!({"peft_type": "LORA", "task_type": null, "r": run.recipe.lora.rank,
                "lora_alpha": run.recipe.lora.alpha, "lora_dropout": run.recipe.lora.dropout, "bias": "none",
                "use_rslora": false, "use_dora": false, "fan_in_fan_out": false, "inference_mode": true,
                "target_modules": run.recipe.lora.targets.peft_pattern(),
                "modules_to_save": ["score"], "rank_pattern": {}, "alpha_pattern": {},
                "base_model_name_or_path": null}),
    )
}

/// The name published checkpoints have.
fn published_name(name: &str) -> String {
    name.strip_prefix("language_model.").map_or_else(
        || name.replacen("vision_tower.", "vision_tower.vision_model.", 1),
        |rest| format!("language_model.model.{rest}"),
    )
}

/// The path that PEFT writes with transformers from 4.52 on.
fn in_memory_name(name: &str) -> String {
    format!("model.{name}")
}

fn save(tensors: &HashMap<String, Tensor>, path: &Path) -> Result<()> {
    candle_core::safetensors::save(tensors, path)
        .with_context(|| format!("write {}", path.display()))
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    fs::write(path, format!("{value:#}\n")).with_context(|| format!("write {}", path.display()))
}
