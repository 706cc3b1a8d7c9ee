use anyhow::Result;
use serde::Serialize;
use sleuth_models::paligemma::{PaliGemmaConfig, TextConfig, VisionConfig};

use super::inputs::Asked;
use super::recipe::{LoraRecipe, Recipe, Stage, StageKind};
use super::sources::Sources;

/// Training is in f32 throughout.
const FLOAT: u64 = 4;

/// What a stage takes, before anything is loaded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Footprint {
    /// What is learned.
    pub stage: StageKind,
    /// Of the backbone.
    pub parameters: u64,
    /// Of them, or of the adapter and the head, those that the stage trains.
    pub trained_parameters: u64,
    /// Image, prompt and response rows of the first step.
    pub rows: u64,
    /// The backbone.
    pub weight_bytes: u64,
    /// What is trained beside the backbone, gradients of both halves of a batch, and moments.
    pub training_bytes: u64,
    /// What a step's forward pass keeps for the backward pass, and one layer's gradients.
    pub activation_bytes: u64,
    /// Sum of the three; pages of the mapped weight files, which the system may drop, come on top.
    pub total_bytes: u64,
}

/// Rows that a step packs.
struct Packed {
    images: u64,
    rows: u64,
    /// Attention weights of one layer and head: query rows times key rows, summed over groups.
    pairs: u64,
}

/// What each stage of a recipe takes, from configs and from the texts of its first step. Reads no
/// weight and no image.
pub fn footprints(recipe: &Recipe, sources: &Sources) -> Result<Vec<Footprint>> {
    let school = sources.look(recipe)?;
    let of = |stage: &Stage| {
        let config = &school.config;
        let mut packed = Packed { images: stage.images as u64, rows: 0, pairs: 0 };
        if stage.kind != StageKind::Vision {
            for index in 0..packed.images {
                let lesson = school.inputs.lesson(index, stage);
                let lengths = Asked::lengths(&lesson.items, &school.inputs.tokenizer)?;
                packed.add(config.vision_config.image_tokens() + lengths.prompt, &lengths.texts);
            }
        }
        Ok(Footprint::new(config, stage, recipe.lora, &packed))
    };
    recipe.stages.iter().map(of).collect()
}

// === impl Packed ===

impl Packed {
    fn add(&mut self, prefix: usize, texts: &[usize]) {
        let (prefix, own): (u64, u64) = (prefix as u64, texts.iter().map(|&t| t as u64).sum());
        self.rows += prefix + own;
        // Responses share tiles of about 128 rows, whose keys are the prefix and the tile.
        self.pairs += prefix * prefix + own * (prefix + own.min(128));
    }
}

// === impl Footprint ===

impl Footprint {
    fn new(config: &PaliGemmaConfig, stage: &Stage, lora: LoraRecipe, packed: &Packed) -> Self {
        let (v, t) = (&config.vision_config, &config.text_config);
        let vision = vision_parameters(v);
        let parameters = vision + projector_parameters(config) + decoder_parameters(t);
        let trained_parameters = match stage.kind {
            StageKind::Vision => vision,
            StageKind::Pretrain => parameters,
            StageKind::Reward => adapter_parameters(config, lora) + t.hidden_size as u64 + 1,
        };
        let beside = if stage.kind == StageKind::Reward { trained_parameters } else { 0 };
        let tower = vision_activations(v) * packed.images;
        let tower_layer = tower / v.num_hidden_layers as u64;
        let decoder = decoder_activations(t, packed);
        let decoder_layer = decoder / t.num_hidden_layers as u64;
        let activations = match stage.kind {
            StageKind::Vision => tower + tower_layer,
            StageKind::Pretrain => tower + decoder + decoder_layer,
            // The tower runs without a backward pass: a layer at a time.
            StageKind::Reward => tower_layer.max(decoder + decoder_layer),
        };
        let weight_bytes = FLOAT * parameters;
        // Two gradients and two moments.
        let training_bytes = FLOAT * (beside + 4 * trained_parameters);
        let activation_bytes = FLOAT * activations;
        Self {
            stage: stage.kind,
            parameters,
            trained_parameters,
            rows: packed.rows,
            weight_bytes,
            training_bytes,
            activation_bytes,
            total_bytes: weight_bytes + training_bytes + activation_bytes,
        }
    }
}

/// Numbers that one image's pass through the tower keeps.
fn vision_activations(v: &VisionConfig) -> u64 {
    let (rows, heads) = (v.image_tokens() as u64, v.num_attention_heads as u64);
    let (hidden, mlp) = (v.hidden_size as u64, v.intermediate_size as u64);
    let row = 12 * hidden + 3 * mlp;
    v.num_hidden_layers as u64 * (rows * row + heads * rows * rows)
}

/// Numbers that a packed pass through the decoder keeps: norms, projections, rotated queries and
/// keys, attention and its weights, gate, up and their product, residuals.
fn decoder_activations(t: &TextConfig, packed: &Packed) -> u64 {
    let Widths { hidden, mlp, query, key } = widths(t);
    let row = 6 * hidden + 3 * query + 7 * key + 3 * mlp;
    let weights = t.num_attention_heads as u64 * packed.pairs;
    t.num_hidden_layers as u64 * (packed.rows * row + weights)
}

struct Widths {
    hidden: u64,
    mlp: u64,
    query: u64,
    key: u64,
}

fn widths(t: &TextConfig) -> Widths {
    Widths {
        hidden: t.hidden_size as u64,
        mlp: t.intermediate_size as u64,
        query: (t.num_attention_heads * t.head_dim) as u64,
        key: (t.num_key_value_heads * t.head_dim) as u64,
    }
}

fn vision_parameters(v: &VisionConfig) -> u64 {
    let (hidden, mlp) = (v.hidden_size as u64, v.intermediate_size as u64);
    let patch = 3 * (v.patch_size as u64).pow(2) * hidden + hidden;
    let layer = 4 * (hidden * hidden + hidden) + 2 * hidden * mlp + mlp + hidden + 4 * hidden;
    patch + v.image_tokens() as u64 * hidden + v.num_hidden_layers as u64 * layer + 2 * hidden
}

fn projector_parameters(config: &PaliGemmaConfig) -> u64 {
    (config.vision_config.hidden_size as u64 + 1) * config.text_config.hidden_size as u64
}

fn decoder_parameters(t: &TextConfig) -> u64 {
    let hidden = t.hidden_size as u64;
    let linear: u64 = decoder_linears(t).iter().map(|(input, output)| input * output).sum();
    let layers = t.num_hidden_layers as u64;
    t.vocab_size as u64 * hidden + layers * (linear + 2 * hidden) + hidden
}

fn adapter_parameters(config: &PaliGemmaConfig, lora: LoraRecipe) -> u64 {
    let (v, t) = (config.vision_config.hidden_size as u64, &config.text_config);
    let pair = |(input, output): (u64, u64)| lora.rank as u64 * (input + output);
    let projector = pair((v, t.hidden_size as u64));
    let decoder =
        t.num_hidden_layers as u64 * decoder_linears(t).into_iter().map(pair).sum::<u64>();
    let adapts = |module| lora.targets.adapts(module);
    u64::from(adapts("multi_modal_projector.linear")) * projector
        + u64::from(adapts("language_model.layers.0.self_attn.q_proj")) * decoder
}

/// Inputs and outputs of a layer's q, k, v, o, gate, up and down.
fn decoder_linears(t: &TextConfig) -> [(u64, u64); 7] {
    let Widths { hidden, mlp, query, key } = widths(t);
    let (up, down) = ((hidden, mlp), (mlp, hidden));
    [(hidden, query), (hidden, key), (hidden, key), (query, hidden), up, up, down]
}

#[cfg(test)]
mod tests {
    use super::super::recipe::LoraTargets;
    use super::super::run::Run;
    use super::*;

    /// The published 3B at 448 px.
    const PALIGEMMA_3B: &str = r#"{"model_type": "paligemma", "projection_dim": 2048,
        "text_config": {"hidden_size": 2048, "intermediate_size": 16384, "model_type": "gemma",
            "num_attention_heads": 8, "num_hidden_layers": 18, "num_key_value_heads": 1,
            "vocab_size": 257216},
        "vision_config": {"hidden_size": 1152, "image_size": 448, "intermediate_size": 4304,
            "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14}}"#;

    #[test]
    fn the_published_model_has_the_papers_counts() {
        let config = PaliGemmaConfig::from_json(PALIGEMMA_3B).unwrap();
        let lora =
            LoraRecipe { rank: 512, alpha: 128.0, dropout: 0.1, targets: LoraTargets::Decoder };
        // Gemma 2B's q, k, v, o, gate, up and down at rank 512 (reference: 627.6 M).
        assert_eq!(adapter_parameters(&config, lora), 627_572_736);
        let both = LoraRecipe { targets: LoraTargets::Both, ..lora };
        assert_eq!(adapter_parameters(&config, both) - 627_572_736, 512 * (1152 + 2048));
    }

    #[test]
    fn parameters_are_counted_as_a_run_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = super::super::run::tests::tiny();
        let mut run = Run::open(folder.path(), &recipe, &Sources::default()).unwrap();
        run.advance(u64::MAX, 100, &mut |_| ()).unwrap();
        let counted = footprints(&recipe, &Sources::default()).unwrap();
        let elements = |of: &super::super::parameters::Parameters, head: bool| -> u64 {
            let is_head = |n: &str| n.starts_with("score.") || n.starts_with("patch_head.");
            of.iter().filter(|(n, _)| head || !is_head(n)).map(|(_, v)| v.elem_count() as u64).sum()
        };
        assert_eq!(counted[0].parameters, elements(&run.base, false));
        let reward = counted.iter().find(|f| f.stage == StageKind::Reward).unwrap();
        assert_eq!(reward.trained_parameters, elements(&run.lora, true));
    }
}
