use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::Replace;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split as SplitAt, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

use crate::scenes::{Split, example, question_example};

/// Scenes whose captions the merges are learned from.
const SCENES: u64 = 3000;
/// Above the number of words, so that every word of a caption becomes one token.
const MERGED_VOCABULARY: usize = 2000;
const SPECIAL: [&str; 4] = ["<pad>", "<eos>", "<bos>", "<unk>"];

/// A tokenizer in Gemma's form (`▁` for spaces, BPE with byte fallback, no pre-tokenizer) whose
/// merges are learned from training captions: the text of a `tokenizer.json`.
///
/// Ids: pad 0, eos 1, bos 2, unk 3, the 256 bytes, newline, the pieces, `<image>` last.
pub fn scene_tokenizer(seed: u64) -> Result<String> {
    let learned = learn(seed)?;
    let mut vocabulary: Vec<String> = SPECIAL.map(str::to_owned).to_vec();
    vocabulary.extend((0..=255).map(|b| format!("<0x{b:02X}>")));
    vocabulary.push("\n".to_owned());
    let mut pieces: Vec<(&String, &Value)> = learned["model"]["vocab"]
        .as_object()
        .context("the learned model has no vocabulary")?
        .iter()
        .collect();
    pieces.sort_by_key(|(_, id)| id.as_u64());
    vocabulary.extend(pieces.into_iter().map(|(piece, _)| piece.clone()));
    vocabulary.push("<image>".to_owned());
    let ids: serde_json::Map<String, Value> =
        vocabulary.iter().enumerate().map(|(id, piece)| (piece.clone(), json!(id))).collect();
    let added: Vec<Value> = SPECIAL
        .iter()
        .chain(&["<image>"])
        .map(|piece| {
            json!({"id": ids[*piece], "content": piece, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>",
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": true, "ignore_merges": false, "vocab": ids,
            "merges": learned["model"]["merges"]},
    });
    Ok(serde_json::to_string_pretty(&tokenizer)?)
}

/// BPE merges that stay within words, as the `tokenizers` library learns them.
fn learn(seed: u64) -> Result<Value> {
    let trainer = BpeTrainer::builder().vocab_size(MERGED_VOCABULARY).show_progress(false).build();
    let mut trainer = TrainerWrapper::BpeTrainer(trainer);
    let mut tokenizer = Tokenizer::new(BPE::default());
    let failed = |e: tokenizers::Error| anyhow::anyhow!("{e}");
    tokenizer.with_normalizer(Some(Replace::new(" ", "▁").map_err(failed)?)).map_err(failed)?;
    let at_words = SplitAt::new(
        SplitPattern::String("▁".to_owned()),
        SplitDelimiterBehavior::MergedWithNext,
        false,
    )
    .map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![
        PreTokenizerWrapper::Split(at_words),
        PreTokenizerWrapper::Punctuation(Punctuation::new(SplitDelimiterBehavior::Isolated)),
    ])));
    let texts: Vec<String> = (0..SCENES).flat_map(|index| texts_of(seed, index)).collect();
    tokenizer.train(&mut trainer, texts.iter().map(String::as_str)).map_err(failed)?;
    Ok(serde_json::from_str(&tokenizer.to_string(false).map_err(failed)?)?)
}

/// Prompts and responses of one training scene.
fn texts_of(seed: u64, index: u64) -> Vec<String> {
    let captions = example(Split::Train, seed, index, 4);
    let answers = question_example(Split::Train, seed, index, 2);
    captions
        .items
        .into_iter()
        .chain(answers.items)
        .flat_map(|item| [item.prompt, item.text])
        .collect()
}
