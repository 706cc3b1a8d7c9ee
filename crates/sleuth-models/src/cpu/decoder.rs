mod thin;

use std::ops::Range;

use super::attention::{Heads, View};
use super::element;
use super::kernel::WIDTH;
use super::rows::{Rows, RowsMut};
use super::team::{Buffer, Scratch};
use super::weights::{Linear, Module, row_stride};
use super::workspace::Block;
use crate::LoadError;
use crate::checkpoint::Checkpoint;
use crate::ops::RopeTable;
use crate::paligemma::TextConfig;

/// Columns of the MLP that are worked out at a time, so that gate and up stay in the first-level
/// cache until they are multiplied.
pub(super) const GATE_PANELS: usize = 8;

/// One Gemma 1 block, packed for the CPU.
#[derive(Debug)]
pub(super) struct Layer {
    input_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    post_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
    heads: Heads,
}

#[derive(Debug)]
pub(super) struct RmsNorm {
    /// `1 + w`.
    weight: Vec<f32>,
    eps: f32,
}

/// Which of its outputs a projection gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Project {
    /// Queries, keys and values.
    All,
    /// Keys and values: of prefix rows in the last layer nothing else is read.
    KeyValues,
}

// === impl Layer ===

impl Layer {
    pub(super) fn load(
        config: &TextConfig,
        checkpoint: &Checkpoint,
        depth: usize,
    ) -> Result<Self, LoadError> {
        let path = format!("language_model.layers.{depth}");
        let module = Module::new(checkpoint, &path);
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let heads = heads(config);
        let (q, kv) = (heads.query * heads.dim, heads.key_value * heads.dim);
        Ok(Self {
            input_norm: RmsNorm::load(config, &module, "input_layernorm")?,
            query: module.linear("self_attn.q_proj", hidden, q, false)?,
            key: module.linear("self_attn.k_proj", hidden, kv, false)?,
            value: module.linear("self_attn.v_proj", hidden, kv, false)?,
            out: module.linear("self_attn.o_proj", q, hidden, false)?,
            post_norm: RmsNorm::load(config, &module, "post_attention_layernorm")?,
            gate: module.linear("mlp.gate_proj", hidden, wide, false)?,
            up: module.linear("mlp.up_proj", hidden, wide, false)?,
            down: module.linear("mlp.down_proj", wide, hidden, false)?,
            heads,
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        let attention = [&self.query, &self.key, &self.value, &self.out];
        attention.into_iter().chain([&self.gate, &self.up, &self.down]).map(Linear::bytes).sum()
    }

    /// Rotated queries and keys, and values, of a block's rows; `positions[row]` is a packed row's
    /// position.
    pub(super) fn project(
        &self,
        block: &mut Block<'_>,
        what: Project,
        (table, positions): (&RopeTable, &[u32]),
        scratch: &mut Scratch,
    ) {
        let count = block.rows.len();
        let stride = row_stride(self.out.outputs());
        let mut normed = RowsMut::new(scratch.normed.room(count * stride), stride, count);
        self.input_norm.forward(block.x.as_rows(), normed.part(0, count, 0));
        let Heads { query, key_value, dim } = self.heads;
        let positions = &positions[block.rows.clone()];
        let angles = |row: usize| table.row(positions[row] as usize);
        if what == Project::All {
            self.query.forward(normed.as_rows(), block.query.part(0, count, 0));
            element::rotate(block.query.part(0, count, 0), (query, dim / 2), angles);
        }
        self.key.forward(normed.as_rows(), block.key.part(0, count, 0));
        element::rotate(block.key.part(0, count, 0), (key_value, dim / 2), angles);
        self.value.forward(normed.as_rows(), block.value.part(0, count, 0));
    }

    /// The rest of the layer: attention, output projection, gated MLP.
    pub(super) fn finish(&self, views: &[View<'_>], block: &mut Block<'_>, scratch: &mut Scratch) {
        let (count, hidden) = (block.rows.len(), self.out.outputs());
        let (stride, query_stride) = (row_stride(hidden), row_stride(self.query.outputs()));
        let Scratch { normed, attended, wide, gate, up, out, attention } = scratch;
        let attended = attended.room(count * query_stride);
        let mut attended = RowsMut::new(attended, query_stride, count);
        let queries = block.query.as_rows();
        let rows = block.rows.clone();
        self.heads.attend(rows, queries, views, attention, attended.part(0, count, 0));
        let mut out = RowsMut::new(out.room(count * stride), stride, count);
        self.out.forward(attended.as_rows(), out.part(0, count, 0));
        element::add(block.x.part(0, count, 0), out.as_rows(), hidden);
        let mut normed = RowsMut::new(normed.room(count * stride), stride, count);
        self.post_norm.forward(block.x.as_rows(), normed.part(0, count, 0));
        let wide_stride = row_stride(self.up.outputs());
        let mut wide = RowsMut::new(wide.room(count * wide_stride), wide_stride, count);
        let panels = 0..self.up.panel_count();
        self.gated(normed.as_rows(), panels, (gate, up), &mut wide);
        self.down.forward(wide.as_rows(), out.part(0, count, 0));
        element::add(block.x.part(0, count, 0), out.as_rows(), hidden);
    }

    /// `gelu(x · gate) · (x · up)` of some panels, a few columns at a time.
    fn gated(
        &self,
        x: Rows<'_>,
        panels: Range<usize>,
        (gate, up): (&mut Buffer, &mut Buffer),
        wide: &mut RowsMut<'_>,
    ) {
        let count = x.count();
        let stride = GATE_PANELS * WIDTH;
        let gate = gate.room(count * stride);
        let up = up.room(count * stride);
        for from in panels.clone().step_by(GATE_PANELS) {
            let to = panels.end.min(from + GATE_PANELS);
            self.gate.columns(x, from, to, RowsMut::new(gate, stride, count));
            self.up.columns(x, from, to, RowsMut::new(up, stride, count));
            let (gate, up) = (Rows::new(gate, stride, count), Rows::new(up, stride, count));
            let columns = (to - from) * WIDTH;
            let at = (from - panels.start) * WIDTH;
            element::gated_gelu(gate, up, columns, wide.part(0, count, at));
        }
    }
}

pub(super) fn heads(config: &TextConfig) -> Heads {
    Heads {
        query: config.num_attention_heads,
        key_value: config.num_key_value_heads,
        dim: config.head_dim,
    }
}

// === impl RmsNorm ===

impl RmsNorm {
    pub(super) fn load(
        config: &TextConfig,
        module: &Module<'_>,
        name: &str,
    ) -> Result<Self, LoadError> {
        let weight = module.values(&format!("{name}.weight"), config.hidden_size)?;
        let weight = weight.into_iter().map(|w| 1.0 + w).collect();
        Ok(Self { weight, eps: config.rms_norm_eps as f32 })
    }

    pub(super) fn forward(&self, x: Rows<'_>, out: RowsMut<'_>) {
        element::rms_norm(x, &self.weight, self.eps, out);
    }
}
