//! Tensor names. transformers has written PaliGemma and Mllama under several families; all map to one:
//! `vision_tower.…` or `vision_model.…`, `multi_modal_projector.…`, `language_model.…`,
//! `lm_head.weight`, `score.…`.

const ROOTS: [&str; 6] =
    ["vision_tower", "vision_model", "multi_modal_projector", "language_model", "lm_head", "score"];

/// The canonical form of a tensor name or module path; a name of no known family comes back as is.
///
/// On disk: `language_model.model.layers…`, `vision_tower.vision_model.…` (Mllama: `vision_model.…`).
/// In memory from transformers 4.52 on: `model.language_model.layers…`, `model.vision_tower.…`. PEFT
/// puts `base_model.model.` in front, a wrapper module may add another level.
pub fn canonical_name(name: &str) -> String {
    let Some(at) = ROOTS.iter().filter_map(|root| root_position(name, root)).min() else {
        return name.to_owned();
    };
    let name = &name[at..];
    for (old, new) in [
        ("vision_tower.vision_model.", "vision_tower."),
        ("language_model.model.", "language_model."),
        ("language_model.lm_head.", "lm_head."),
    ] {
        if let Some(rest) = name.strip_prefix(old) {
            return format!("{new}{rest}");
        }
    }
    name.to_owned()
}

/// Where `root` stands as a whole path component.
fn root_position(name: &str, root: &str) -> Option<usize> {
    let starts = |at: usize| at == 0 || name.as_bytes()[at - 1] == b'.';
    let ends = |end: usize| end == name.len() || name.as_bytes()[end] == b'.';
    let found = name.match_indices(root).map(|(at, _)| at);
    found.filter(|&at| starts(at)).find(|&at| ends(at + root.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_maps_to_one_name() {
        for (name, canonical) in [
            (
                "language_model.model.layers.0.mlp.up_proj.weight",
                "language_model.layers.0.mlp.up_proj.weight",
            ),
            (
                "model.language_model.layers.0.mlp.up_proj.weight",
                "language_model.layers.0.mlp.up_proj.weight",
            ),
            ("base_model.model.model.language_model.norm.weight", "language_model.norm.weight"),
            ("vision_tower.vision_model.post_layernorm.bias", "vision_tower.post_layernorm.bias"),
            (
                "model.vision_tower.vision_model.post_layernorm.bias",
                "vision_tower.post_layernorm.bias",
            ),
            ("model.vision_tower.post_layernorm.bias", "vision_tower.post_layernorm.bias"),
            ("model.multi_modal_projector.linear.bias", "multi_modal_projector.linear.bias"),
            ("language_model.lm_head.weight", "lm_head.weight"),
            ("base_model.model.score.weight", "score.weight"),
            ("model.vision_model.class_embedding", "vision_model.class_embedding"),
            (
                "language_model.model.layers.3.cross_attn_attn_gate",
                "language_model.layers.3.cross_attn_attn_gate",
            ),
            ("base_model.model.model.multi_modal_projector", "multi_modal_projector"),
            ("base_model.model.multi_modal_projector.weight", "multi_modal_projector.weight"),
            ("something.else", "something.else"),
            ("subscore.weight", "subscore.weight"),
        ] {
            assert_eq!(canonical_name(name), canonical, "{name}");
        }
    }
}
