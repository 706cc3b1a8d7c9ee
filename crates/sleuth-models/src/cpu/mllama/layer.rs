use super::cross::CrossLayer;
use crate::LoadError;
use crate::checkpoint::Checkpoint;
use crate::cpu::decoder::{Layer, LayerShape};
use crate::cpu::weights::Module;
use crate::mllama::TextConfig;

/// A layer, and its place among those of its kind.
#[derive(Debug)]
pub(super) enum DecoderLayer {
    Text(usize, Layer),
    Image(usize, CrossLayer),
}

// === impl DecoderLayer ===

impl DecoderLayer {
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Text(_, layer) => layer.bytes(),
            Self::Image(_, layer) => layer.bytes(),
        }
    }
}

/// All of them, of both kinds.
pub(super) fn layers(
    config: &TextConfig,
    shape: &LayerShape,
    checkpoint: &Checkpoint,
) -> Result<Vec<DecoderLayer>, LoadError> {
    let (mut texts, mut images) = (0, 0);
    let mut place = |looks: bool| {
        let counter = if looks { &mut images } else { &mut texts };
        *counter += 1;
        *counter - 1
    };
    (0..config.num_hidden_layers)
        .map(|depth| {
            let path = format!("language_model.layers.{depth}");
            let module = Module::new(checkpoint, &path);
            let looks = config.cross_attention_layers.contains(&depth);
            let place = place(looks);
            Ok(if looks {
                DecoderLayer::Image(place, CrossLayer::load(shape, &module)?)
            } else {
                DecoderLayer::Text(place, Layer::load(shape, &module)?)
            })
        })
        .collect()
}
