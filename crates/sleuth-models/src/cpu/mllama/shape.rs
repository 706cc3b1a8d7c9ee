use super::{MllamaCpu, model};
use crate::backbone::{PassCost, PassShape};
use crate::cpu::kv::{KvLayout, KvType};
use crate::cpu::weights::Linear;
use crate::mllama::{MllamaConfig, TextConfig, VisionConfig};

// === impl MllamaCpu ===

impl MllamaCpu {
    /// What the algorithm needs for a pass, if every image has all tiles: every prompt once, of its
    /// last layer keys and values only, of a row the keys it sees.
    pub fn cost(&self, shape: &PassShape) -> PassCost {
        let (v, t) = (&self.config.vision_config, &self.config.text_config);
        let own = t.self_attention_layers() as f64;
        let cross = t.cross_attention_layers.len() as f64;
        let (hidden, widths) = (t.hidden_size as f64, model::widths(t));
        let query = widths.query as f64;
        let key_value = 2.0 * hidden * widths.key_value as f64;
        let rest = 2.0 * hidden * query + 3.0 * hidden * t.intermediate_size as f64;
        let depth = own + cross;
        let image = v.image_tokens() as f64;
        let mut cost =
            PassCost { vision: shape.images as f64 * self.image_cost(), ..PassCost::default() };
        for &rows in &shape.prefixes {
            let rows = rows as f64;
            let seen = f64::midpoint(rows, 1.0);
            cost.linear += rows * (own * key_value + (depth - 1.0) * rest);
            cost.attention += 2.0 * rows * query * ((own - 1.0) * seen + cross * image);
        }
        for suffix in &shape.suffixes {
            let rows = suffix.rows as f64;
            let seen = (suffix.prefix + suffix.past) as f64 + f64::midpoint(rows, 1.0);
            cost.linear += rows * (own * key_value + depth * rest);
            cost.attention += 2.0 * rows * query * (own * seen + cross * image);
        }
        let giga = |products: f64| 2.0 * products / 1e9;
        PassCost {
            linear: giga(cost.linear),
            attention: giga(cost.attention),
            vision: giga(cost.vision),
        }
    }

    /// Products of an image's tower, projector, keys and values.
    fn image_cost(&self) -> f64 {
        let (v, t) = (&self.config.vision_config, &self.config.text_config);
        let rows = (v.max_num_tiles * v.tile_rows()) as f64;
        let hidden = v.hidden_size as f64;
        let layer =
            4.0 * hidden * hidden + 2.0 * hidden * v.intermediate_size as f64 + 2.0 * rows * hidden;
        let depth = (v.num_hidden_layers + v.num_global_layers) as f64;
        let embed = 3.0 * (v.patch_size * v.patch_size) as f64 * hidden;
        let project = (v.vision_output_dim * t.hidden_size) as f64;
        let keys = 2.0 * (t.hidden_size * model::widths(t).key_value) as f64;
        let cross = t.cross_attention_layers.len() as f64;
        rows * (depth * layer + embed) + v.image_tokens() as f64 * (project + cross * keys)
    }

    /// Bytes of keys and values that one image takes at most.
    pub fn image_bytes(&self) -> u64 {
        self.image_layout().bytes(self.config.vision_config.image_tokens())
    }

    /// Bytes of packed weights of a model with this config, before anything is loaded; the embedding
    /// stays mapped.
    pub fn weight_bytes_of(config: &MllamaConfig) -> u64 {
        let (v, t) = (&config.vision_config, &config.text_config);
        let projector = Linear::bytes_for(v.vision_output_dim, t.hidden_size);
        tower_bytes(v) + projector + decoder_bytes(t)
    }

    /// Bytes of keys and values of an image with all tiles, for a model with this config.
    pub fn image_bytes_of(config: &MllamaConfig, kv: KvType) -> u64 {
        let layers = config.text_config.cross_attention_layers.len();
        let layout = KvLayout { layers, ..Self::layout_of(config, kv) };
        layout.bytes(config.vision_config.image_tokens())
    }

    /// Of the keys and values of text.
    pub(in crate::cpu) fn layout_of(config: &MllamaConfig, kv: KvType) -> KvLayout {
        let (t, heads) = (&config.text_config, model::heads(&config.text_config));
        let layers = t.self_attention_layers();
        KvLayout { layers, heads: heads.key_value, dim: heads.dim, kind: kv }
    }
}

fn tower_bytes(v: &VisionConfig) -> u64 {
    let (hidden, wide) = (v.hidden_size, v.intermediate_size);
    let layer = 4 * Linear::bytes_for(hidden, hidden)
        + Linear::bytes_for(hidden, wide)
        + Linear::bytes_for(wide, hidden);
    let depth = (v.num_hidden_layers + v.num_global_layers) as u64;
    let tiles = (v.canvases().len() + 1) * v.max_num_tiles;
    let tables = hidden * (v.tile_tokens() + tiles * (v.tile_tokens() + 2));
    Linear::bytes_for(3 * v.patch_size * v.patch_size, hidden)
        + depth * layer
        + (tables * size_of::<f32>()) as u64
}

fn decoder_bytes(t: &TextConfig) -> u64 {
    let (hidden, wide) = (t.hidden_size, t.intermediate_size);
    let widths = model::widths(t);
    // Both kinds of layers have the same matrices.
    let layer = Linear::bytes_for(hidden, widths.query)
        + 2 * Linear::bytes_for(hidden, widths.key_value)
        + Linear::bytes_for(widths.query, hidden)
        + 2 * Linear::bytes_for(hidden, wide)
        + Linear::bytes_for(wide, hidden);
    t.num_hidden_layers as u64 * layer
}
