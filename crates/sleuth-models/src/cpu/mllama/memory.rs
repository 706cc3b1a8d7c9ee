//! What passes take beside the weights, known before they run.

use super::{MllamaCpu, model, tower};
use crate::backbone::PassShape;
use crate::cpu::attention::Heads;
use crate::cpu::kernel::WIDTH;
use crate::cpu::kv::KvLayout;
use crate::cpu::mlp::GATE_PANELS;
use crate::cpu::pass::Decoder;
use crate::cpu::team::Buffer;
use crate::cpu::weights::row_stride;
use crate::cpu::workspace::{BLOCK_ROWS, Widths};
use crate::mllama::{MllamaConfig, TextConfig, VisionConfig};

// === impl MllamaCpu ===

impl MllamaCpu {
    /// Bytes that a workspace of `threads` threads holds at most after a pass of this shape and no
    /// larger one, by a model of this config.
    pub(in crate::cpu) fn workspace_bytes_of(
        config: &MllamaConfig,
        shape: &PassShape,
        threads: usize,
    ) -> u64 {
        let (v, t) = (&config.vision_config, &config.text_config);
        let text = model::widths(t).bytes(shape.rows());
        let rows = if shape.images == 0 { 0 } else { v.max_num_tiles * v.tile_rows() };
        let image = Widths { query: 0, ..model::widths(t) };
        let images = tower::widths(v).bytes(rows) + image.bytes(rows);
        text + images + threads as u64 * (text_scratch(config, shape) + tower_scratch(v, rows))
    }

    /// Bytes that seeing an image takes at most beside the workspace: the tower's output, and one
    /// layer's keys and values of its rows.
    pub(in crate::cpu) fn seeing_bytes_of(config: &MllamaConfig) -> u64 {
        let v = &config.vision_config;
        let states = v.image_tokens() * v.vision_output_dim * size_of::<f32>();
        states as u64 + tower::layout(v).bytes(v.max_num_tiles * v.tile_rows())
    }

    /// Bytes that a pass of this shape takes at most, beside weights and what was held before it:
    /// workspace, keys and values, and what seeing its images holds and gives.
    pub fn peak_bytes(&self, shape: &PassShape, threads: usize) -> u64 {
        let layout = self.layout();
        let one = KvLayout { layers: 1, ..layout };
        let prefixes: u64 = shape.prefixes.iter().map(|&rows| layout.bytes(rows)).sum();
        let suffixes = shape.suffixes.iter().map(|suffix| {
            let rows = suffix.past + suffix.rows;
            if suffix.kept { layout.bytes(rows) } else { one.bytes(rows) }
        });
        let images = match shape.images {
            0 => 0,
            n => n as u64 * self.image_bytes() + Self::seeing_bytes_of(&self.config),
        };
        let workspace = Self::workspace_bytes_of(&self.config, shape, threads);
        workspace + prefixes + suffixes.sum::<u64>() + images
    }
}

/// Buffers of one thread in the decoder: blocks are never larger than [`BLOCK_ROWS`].
fn text_scratch(config: &MllamaConfig, shape: &PassShape) -> u64 {
    let t: &TextConfig = &config.text_config;
    let prefix = shape.prefixes.iter().copied().max().unwrap_or(0);
    let shared = shape.suffixes.iter().map(|s| s.prefix).max().unwrap_or(0);
    let own = shape.suffixes.iter().map(|s| s.past + s.rows).max().unwrap_or(0);
    let heads = model::heads(t);
    let seen = [(shared, own), (0, prefix), (config.vision_config.image_tokens(), 0)];
    blocks(&[t.hidden_size, t.hidden_size, heads.query * heads.dim, t.intermediate_size])
        + 2 * Buffer::bytes_for(BLOCK_ROWS * GATE_PANELS * WIDTH)
        + most(heads, &seen)
}

fn tower_scratch(v: &VisionConfig, rows: usize) -> u64 {
    if rows == 0 {
        return 0;
    }
    let hidden = v.hidden_size;
    let wide = v.intermediate_size.max(3 * v.patch_size * v.patch_size);
    let real = (1..=v.max_num_tiles).map(|tiles| (0, tiles * v.tile_tokens()));
    let seen: Vec<(usize, usize)> = real.chain([(0, rows)]).collect();
    blocks(&[hidden, hidden, hidden, wide]) + most(tower::heads(v), &seen)
}

/// Of the scratch that attention to so many shared and own keys needs.
fn most(heads: Heads, seen: &[(usize, usize)]) -> u64 {
    seen.iter()
        .map(|&(shared, own)| heads.scratch_bytes(BLOCK_ROWS, shared, own))
        .max()
        .unwrap_or(0)
}

fn blocks(widths: &[usize]) -> u64 {
    widths.iter().map(|&width| Buffer::bytes_for(BLOCK_ROWS * row_stride(width))).sum()
}
