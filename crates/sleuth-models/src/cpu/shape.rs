use super::attention::Heads;
use super::decoder;
use super::kernel::WIDTH;
use super::kv::KvLayout;
use super::mlp::GATE_PANELS;
use super::model::CpuModel;
use super::pass::Decoder;
use super::team::Buffer;
use super::weights::row_stride;
use super::workspace::{BLOCK_ROWS, Widths};
use crate::backbone::{PassCost, PassShape};
use crate::paligemma::{PaliGemmaConfig, TextConfig, VisionConfig, pass_cost};

// === impl CpuModel ===

impl CpuModel {
    /// What the algorithm needs for a pass.
    pub fn cost(&self, shape: &PassShape) -> PassCost {
        pass_cost(&self.config, shape)
    }

    /// Bytes that a workspace of `threads` threads holds at most after a pass of this shape and no
    /// larger one.
    pub fn workspace_bytes(&self, shape: &PassShape, threads: usize) -> u64 {
        workspace_bytes(&self.config, shape, threads)
    }

    /// Bytes that a pass of this shape takes at most, beside weights and what was held before it:
    /// workspace, keys and values, and what the vision tower holds and gives.
    pub fn peak_bytes(&self, shape: &PassShape, threads: usize) -> u64 {
        let vision = self.vision.pass_bytes(shape.images);
        self.workspace_bytes(shape, threads) + self.pass_kv_bytes(shape) + vision
    }

    /// Bytes of keys and values that a pass of this shape holds at its end: those of new prefixes,
    /// of responses that go on, and of one layer of whole responses.
    pub fn pass_kv_bytes(&self, shape: &PassShape) -> u64 {
        let layout = self.layout();
        let one = KvLayout { layers: 1, ..layout };
        let prefixes: u64 = shape.prefixes.iter().map(|&rows| layout.bytes(rows)).sum();
        let suffixes = shape.suffixes.iter().map(|suffix| {
            let rows = suffix.past + suffix.rows;
            if suffix.kept { layout.bytes(rows) } else { one.bytes(rows) }
        });
        prefixes + suffixes.sum::<u64>()
    }
}

/// Bytes that a workspace of `threads` threads holds at most after a pass of this shape and no
/// larger one, by a model of this config.
pub(super) fn workspace_bytes(config: &PaliGemmaConfig, shape: &PassShape, threads: usize) -> u64 {
    let (v, t) = (&config.vision_config, &config.text_config);
    let decoder = Widths::of(t).bytes(shape.rows());
    let vision = Widths { hidden: v.hidden_size, query: v.hidden_size, key_value: v.hidden_size };
    let vision = vision.bytes(shape.images * v.image_tokens());
    decoder + vision + threads as u64 * (decoder_scratch(t, shape) + vision_scratch(v, shape))
}

/// Buffers of one thread in the decoder: blocks are never larger than [`BLOCK_ROWS`].
fn decoder_scratch(t: &TextConfig, shape: &PassShape) -> u64 {
    let prefix = shape.prefixes.iter().copied().max().unwrap_or(0);
    let shared = shape.suffixes.iter().map(|s| s.prefix).max().unwrap_or(0);
    let own = shape.suffixes.iter().map(|s| s.past + s.rows).max().unwrap_or(0);
    let heads = decoder::heads(t);
    let query = heads.query * heads.dim;
    let gate = BLOCK_ROWS * GATE_PANELS * WIDTH;
    let attention = heads
        .scratch_bytes(BLOCK_ROWS, shared, own)
        .max(heads.scratch_bytes(BLOCK_ROWS, 0, prefix));
    blocks(&[t.hidden_size, t.hidden_size, query, t.intermediate_size])
        + 2 * Buffer::bytes_for(gate)
        + attention
}

fn vision_scratch(v: &VisionConfig, shape: &PassShape) -> u64 {
    if shape.images == 0 {
        return 0;
    }
    let hidden = v.hidden_size;
    let heads =
        Heads { query: v.num_attention_heads, key_value: v.num_attention_heads, dim: v.head_dim() };
    let wide = v.intermediate_size.max(3 * v.patch_size * v.patch_size);
    blocks(&[hidden, hidden, hidden, wide]) + heads.scratch_bytes(BLOCK_ROWS, 0, v.image_tokens())
}

fn blocks(widths: &[usize]) -> u64 {
    widths.iter().map(|&width| Buffer::bytes_for(BLOCK_ROWS * row_stride(width))).sum()
}
