mod thin;

use super::attention::{Heads, View};
use super::element;
use super::mlp::{GatedMlp, MlpScratch};
use super::norm::RmsNorm;
use super::rows::RowsMut;
use super::team::Scratch;
use super::weights::{Linear, Module, row_stride};
use super::workspace::Block;
use crate::ops::RopeTable;
use crate::paligemma::TextConfig;
use crate::{Activation, LoadError};

/// A decoder block with attention to its own sequence, as Gemma 1 and Llama have it, packed for the
/// CPU.
#[derive(Debug)]
pub(super) struct Layer {
    input_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    post_norm: RmsNorm,
    mlp: GatedMlp,
    heads: Heads,
}

/// Sizes and kinds of a decoder's blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerShape {
    pub(super) hidden: usize,
    pub(super) wide: usize,
    pub(super) heads: Heads,
    /// Of the norms: what is added to the mean, and to the stored weight.
    pub(super) norm: (f64, f32),
    pub(super) activation: Activation,
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
    pub(super) fn load(shape: &LayerShape, module: &Module<'_>) -> Result<Self, LoadError> {
        let LayerShape { hidden, wide, heads, norm, activation } = *shape;
        let (q, kv) = (heads.query * heads.dim, heads.key_value * heads.dim);
        Ok(Self {
            input_norm: RmsNorm::load(module, "input_layernorm", hidden, norm)?,
            query: module.linear("self_attn.q_proj", hidden, q, false)?,
            key: module.linear("self_attn.k_proj", hidden, kv, false)?,
            value: module.linear("self_attn.v_proj", hidden, kv, false)?,
            out: module.linear("self_attn.o_proj", q, hidden, false)?,
            post_norm: RmsNorm::load(module, "post_attention_layernorm", hidden, norm)?,
            mlp: GatedMlp::load(module, (hidden, wide), activation)?,
            heads,
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        let attention = [&self.query, &self.key, &self.value, &self.out];
        attention.into_iter().map(Linear::bytes).sum::<u64>() + self.mlp.bytes()
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
        let mlp = MlpScratch { wide, gate, up };
        self.mlp.forward(normed.as_rows(), mlp, out.part(0, count, 0));
        element::add(block.x.part(0, count, 0), out.as_rows(), hidden);
    }
}

// === impl LayerShape ===

impl LayerShape {
    /// Gemma 1's.
    pub(super) fn gemma(config: &TextConfig) -> Self {
        Self {
            hidden: config.hidden_size,
            wide: config.intermediate_size,
            heads: heads(config),
            // The weight is stored less 1.
            norm: (config.rms_norm_eps, 1.0),
            activation: Activation::GeluTanh,
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
