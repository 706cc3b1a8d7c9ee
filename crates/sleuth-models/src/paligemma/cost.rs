use super::{PaliGemmaConfig, VisionConfig};
use crate::backbone::{PassCost, PassShape};

/// What the algorithm needs for a pass: every prefix once, of its last layer keys and values only,
/// of a causal row the keys it sees.
pub fn pass_cost(config: &PaliGemmaConfig, shape: &PassShape) -> PassCost {
    let (v, t) = (&config.vision_config, &config.text_config);
    let depth = t.num_hidden_layers as f64;
    let query = (t.num_attention_heads * t.head_dim) as f64;
    let key_value = (2 * t.hidden_size * t.num_key_value_heads * t.head_dim) as f64;
    let rest =
        2.0 * t.hidden_size as f64 * query + (3 * t.hidden_size * t.intermediate_size) as f64;
    let project = (v.image_tokens() * v.hidden_size * t.hidden_size) as f64;
    let mut cost = PassCost { vision: shape.images as f64 * image(v), ..PassCost::default() };
    for &rows in &shape.prefixes {
        let rows = rows as f64;
        cost.linear += project + rows * (depth * key_value + (depth - 1.0) * rest);
        cost.attention += (depth - 1.0) * 2.0 * rows * rows * query;
    }
    for suffix in &shape.suffixes {
        let rows = suffix.rows as f64;
        let seen = (suffix.prefix + suffix.past) as f64 + f64::midpoint(rows, 1.0);
        cost.linear += rows * depth * (key_value + rest);
        cost.attention += depth * 2.0 * rows * seen * query;
    }
    let giga = |products: f64| 2.0 * products / 1e9;
    PassCost {
        linear: giga(cost.linear),
        attention: giga(cost.attention),
        vision: giga(cost.vision),
    }
}

/// Products of the vision tower for one image.
fn image(v: &VisionConfig) -> f64 {
    let (patches, hidden) = (v.image_tokens() as f64, v.hidden_size as f64);
    let layer = 4.0 * hidden * hidden + 2.0 * hidden * v.intermediate_size as f64;
    let attention = 2.0 * patches * hidden;
    let embed = 3.0 * (v.patch_size * v.patch_size) as f64 * hidden;
    patches * (v.num_hidden_layers as f64 * (layer + attention) + embed)
}
