use super::MllamaCpu;
use super::decoder;
use super::kv::{KvLayout, KvType, PAGE};
use crate::ModelConfig;

/// What images and tokens take in a model, known from its config alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelSizes {
    /// Rows of an image in a prefix.
    pub image_rows: usize,
    /// Bytes that a prefix holds of its image beside those of its rows. Prefixes of one image share
    /// them.
    pub image_bytes: u64,
    /// Bytes of what is known of an image by itself.
    pub features_bytes: u64,
    /// Longest sequence, with the image's rows.
    pub max_positions: usize,
    /// Layers whose keys and values are kept for each row.
    pub layers: usize,
    /// Rows that memory for keys and values is taken for at a time.
    pub kv_page_rows: usize,
    /// Bytes of so many rows, in all layers.
    pub kv_page_bytes: u64,
}

// === impl ModelSizes ===

impl ModelSizes {
    pub(crate) fn of(config: &ModelConfig, kv: KvType) -> Self {
        let (layout, image_bytes, features_bytes) = match config {
            ModelConfig::PaliGemma(config) => {
                let (v, t) = (&config.vision_config, &config.text_config);
                let heads = decoder::heads(t);
                let layers = t.num_hidden_layers;
                let features = v.image_tokens() * v.hidden_size * size_of::<f32>();
                let layout = KvLayout { layers, heads: heads.key_value, dim: heads.dim, kind: kv };
                (layout, 0, features as u64)
            }
            ModelConfig::Mllama(config) => {
                let image = MllamaCpu::image_bytes_of(config, kv);
                (MllamaCpu::layout_of(config, kv), image, image)
            }
        };
        Self {
            image_rows: config.image_rows(),
            image_bytes,
            features_bytes,
            max_positions: config.max_positions(),
            layers: layout.layers,
            kv_page_rows: PAGE,
            kv_page_bytes: layout.bytes(PAGE),
        }
    }

    /// Bytes of a row's keys and values.
    pub fn row_bytes(&self) -> u64 {
        self.kv_page_bytes / self.kv_page_rows as u64
    }

    /// Bytes of an image's keys and values.
    pub fn image_kv_bytes(&self) -> u64 {
        self.prefix_bytes(0)
    }

    /// Bytes of a prefix with a prompt of so many tokens, its image among them.
    pub fn prefix_bytes(&self, prompt: usize) -> u64 {
        let pages = (self.image_rows + prompt).div_ceil(self.kv_page_rows);
        pages as u64 * self.kv_page_bytes + self.image_bytes
    }
}
