mod thin;

use std::ops::Range;
use std::slice;

use crate::LoadError;
use crate::cpu::attention::{Heads, View};
use crate::cpu::decoder::LayerShape;
use crate::cpu::element;
use crate::cpu::mlp::{GatedMlp, MlpScratch};
use crate::cpu::norm::RmsNorm;
use crate::cpu::rows::RowsMut;
use crate::cpu::team::Scratch;
use crate::cpu::weights::{Linear, Module, row_stride};
use crate::cpu::workspace::Block;

/// A decoder block that looks at the image instead of at the text, packed for the CPU.
#[derive(Debug)]
pub(super) struct CrossLayer {
    input_norm: RmsNorm,
    query: Linear,
    query_norm: RmsNorm,
    key: Linear,
    key_norm: RmsNorm,
    value: Linear,
    out: Linear,
    post_norm: RmsNorm,
    mlp: GatedMlp,
    heads: Heads,
    /// What attention's and the MLP's outputs are multiplied by.
    gates: (f32, f32),
}

// === impl CrossLayer ===

impl CrossLayer {
    pub(super) fn load(shape: &LayerShape, module: &Module<'_>) -> Result<Self, LoadError> {
        let LayerShape { hidden, wide, heads, norm, activation } = *shape;
        let (q, kv) = (heads.query * heads.dim, heads.key_value * heads.dim);
        let gate = |name: &str| module.values(name, 1).map(|gate| gate[0].tanh());
        Ok(Self {
            input_norm: RmsNorm::load(module, "input_layernorm", hidden, norm)?,
            query: module.linear("cross_attn.q_proj", hidden, q, false)?,
            query_norm: RmsNorm::load(module, "cross_attn.q_norm", heads.dim, norm)?,
            key: module.linear("cross_attn.k_proj", hidden, kv, false)?,
            key_norm: RmsNorm::load(module, "cross_attn.k_norm", heads.dim, norm)?,
            value: module.linear("cross_attn.v_proj", hidden, kv, false)?,
            out: module.linear("cross_attn.o_proj", q, hidden, false)?,
            post_norm: RmsNorm::load(module, "post_attention_layernorm", hidden, norm)?,
            mlp: GatedMlp::load(module, (hidden, wide), activation)?,
            heads,
            gates: (gate("cross_attn_attn_gate")?, gate("cross_attn_mlp_gate")?),
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        let attention = [&self.query, &self.key, &self.value, &self.out];
        attention.into_iter().map(Linear::bytes).sum::<u64>() + self.mlp.bytes()
    }

    /// Keys and values of the image's states, which are the block's rows.
    pub(super) fn see(&self, block: &mut Block<'_>) {
        let count = block.rows.len();
        self.key.forward(block.x.as_rows(), block.key.part(0, count, 0));
        self.key_norm.heads(block.key.part(0, count, 0), self.heads.key_value);
        self.value.forward(block.x.as_rows(), block.value.part(0, count, 0));
    }

    /// Queries of a block's rows; they are not rotated.
    pub(super) fn project(&self, block: &mut Block<'_>, scratch: &mut Scratch) {
        let count = block.rows.len();
        let stride = row_stride(self.out.outputs());
        let mut normed = RowsMut::new(scratch.normed.room(count * stride), stride, count);
        self.input_norm.forward(block.x.as_rows(), normed.part(0, count, 0));
        self.query.forward(normed.as_rows(), block.query.part(0, count, 0));
        self.query_norm.heads(block.query.part(0, count, 0), self.heads.query);
    }

    /// The rest of the layer. Rows `blind` take nothing of the MLP, and of attention only where
    /// `blind_attend`.
    pub(super) fn finish(
        &self,
        (views, blind): (&[View<'_>], &[Range<usize>]),
        blind_attend: bool,
        block: &mut Block<'_>,
        scratch: &mut Scratch,
    ) {
        let (count, hidden) = (block.rows.len(), self.out.outputs());
        let (stride, query_stride) = (row_stride(hidden), row_stride(self.query.outputs()));
        let Scratch { normed, attended, wide, gate, up, out, attention } = scratch;
        let attended = attended.room(count * query_stride);
        // Rows without a view are not written.
        attended.fill(0.0);
        let mut attended = RowsMut::new(attended, query_stride, count);
        let (rows, queries) = (block.rows.clone(), block.query.as_rows());
        self.heads.attend(rows, queries, views, attention, attended.part(0, count, 0));
        let mut out = RowsMut::new(out.room(count * stride), stride, count);
        self.out.forward(attended.as_rows(), out.part(0, count, 0));
        let all = 0..count;
        let seeing = seeing(&block.rows, blind);
        let attending = if blind_attend { slice::from_ref(&all) } else { seeing.as_slice() };
        let (attention_gate, mlp_gate) = self.gates;
        add(block, attending, &out, attention_gate, hidden);
        let mut normed = RowsMut::new(normed.room(count * stride), stride, count);
        self.post_norm.forward(block.x.as_rows(), normed.part(0, count, 0));
        let mlp = MlpScratch { wide, gate, up };
        self.mlp.forward(normed.as_rows(), mlp, out.part(0, count, 0));
        add(block, &seeing, &out, mlp_gate, hidden);
    }
}

/// Adds some of a block's rows, times a gate.
fn add(block: &mut Block<'_>, rows: &[Range<usize>], out: &RowsMut<'_>, gate: f32, hidden: usize) {
    for rows in rows {
        let (from, count) = (rows.start, rows.len());
        let out = out.as_rows().part(from, count, 0);
        element::add_times(block.x.part(from, count, 0), out, gate, hidden);
    }
}

/// What of the packed rows `rows` is not `blind`, counted from their first.
fn seeing(rows: &Range<usize>, blind: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut seeing = Vec::new();
    let mut from = rows.start;
    for blind in blind.iter().filter(|b| b.start < rows.end && b.end > rows.start) {
        if from < blind.start {
            seeing.push(from - rows.start..blind.start - rows.start);
        }
        from = blind.end;
    }
    if from < rows.end {
        seeing.push(from - rows.start..rows.len());
    }
    seeing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_blind_is_found_in_every_block() {
        let blind = [0..3, 10..12, 20..25];
        let of = |rows: Range<usize>| seeing(&rows, &blind);
        assert_eq!(of(0..30), [3..10, 12..20, 25..30]);
        assert!(of(1..3).is_empty());
        for (rows, seen) in [(2..11, 1..8), (3..10, 0..7), (11..24, 1..9)] {
            assert_eq!(of(rows), vec![seen; 1]);
        }
    }
}
