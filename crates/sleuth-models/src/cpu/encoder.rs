use super::attention::{Heads, View};
use super::element;
use super::norm::LayerNorm;
use super::rows::RowsMut;
use super::team::Scratch;
use super::weights::{Linear, Module, padded, row_stride};
use super::workspace::Block;
use crate::{Activation, LoadError};

/// A block of a vision tower, packed for the CPU.
#[derive(Debug)]
pub(super) struct EncoderLayer {
    norm_1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    norm_2: LayerNorm,
    up: Linear,
    down: Linear,
    heads: Heads,
    activation: Activation,
    /// What attention's and the MLP's outputs are multiplied by.
    gates: Option<(f32, f32)>,
}

/// Sizes and kinds of a tower's blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct EncoderShape {
    pub(super) hidden: usize,
    pub(super) wide: usize,
    pub(super) heads: Heads,
    pub(super) eps: f64,
    pub(super) activation: Activation,
    pub(super) names: &'static EncoderNames,
    /// Whether it has gates.
    pub(super) gated: bool,
}

/// What a tower calls its parts.
#[derive(Debug)]
pub(super) struct EncoderNames {
    norm_1: &'static str,
    out: &'static str,
    norm_2: &'static str,
    /// Whether attention's projections have biases.
    bias: bool,
}

pub(super) const SIGLIP: EncoderNames = EncoderNames {
    norm_1: "layer_norm1",
    out: "self_attn.out_proj",
    norm_2: "layer_norm2",
    bias: true,
};

pub(super) const MLLAMA: EncoderNames = EncoderNames {
    norm_1: "input_layernorm",
    out: "self_attn.o_proj",
    norm_2: "post_attention_layernorm",
    bias: false,
};

// === impl EncoderLayer ===

impl EncoderLayer {
    pub(super) fn load(shape: &EncoderShape, module: &Module<'_>) -> Result<Self, LoadError> {
        let EncoderShape { hidden, wide, heads, eps, activation, names, gated } = *shape;
        let square = |name: &str| module.linear(name, hidden, hidden, names.bias);
        let gate = |name: &str| module.values(name, 1).map(|gate| gate[0].tanh());
        Ok(Self {
            norm_1: LayerNorm::load(module, names.norm_1, hidden, eps)?,
            query: square("self_attn.q_proj")?,
            key: square("self_attn.k_proj")?,
            value: square("self_attn.v_proj")?,
            out: square(names.out)?,
            norm_2: LayerNorm::load(module, names.norm_2, hidden, eps)?,
            up: module.linear("mlp.fc1", hidden, wide, true)?,
            down: module.linear("mlp.fc2", wide, hidden, true)?,
            heads,
            activation,
            gates: if gated { Some((gate("gate_attn")?, gate("gate_ffn")?)) } else { None },
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        [&self.query, &self.key, &self.value, &self.out, &self.up, &self.down]
            .into_iter()
            .map(Linear::bytes)
            .sum()
    }

    /// Queries, keys and values of a block's rows.
    pub(super) fn project(&self, block: &mut Block<'_>, scratch: &mut Scratch) {
        let count = block.rows.len();
        let stride = row_stride(self.query.outputs());
        let mut normed = RowsMut::new(scratch.normed.room(count * stride), stride, count);
        self.norm_1.forward(block.x.as_rows(), normed.part(0, count, 0));
        self.query.forward(normed.as_rows(), block.query.part(0, count, 0));
        self.key.forward(normed.as_rows(), block.key.part(0, count, 0));
        self.value.forward(normed.as_rows(), block.value.part(0, count, 0));
    }

    /// The rest of the layer: attention, output projection, MLP.
    pub(super) fn finish(&self, views: &[View<'_>], block: &mut Block<'_>, scratch: &mut Scratch) {
        let (count, hidden) = (block.rows.len(), self.out.outputs());
        let stride = row_stride(hidden);
        let Scratch { normed, attended, wide, out, attention, .. } = scratch;
        let mut attended = RowsMut::new(attended.room(count * stride), stride, count);
        let (rows, queries) = (block.rows.clone(), block.query.as_rows());
        self.heads.attend(rows, queries, views, attention, attended.part(0, count, 0));
        let mut out = RowsMut::new(out.room(count * stride), stride, count);
        self.out.forward(attended.as_rows(), out.part(0, count, 0));
        self.add(block, &out, self.gates.map(|(attention, _)| attention));
        let mut normed = RowsMut::new(normed.room(count * stride), stride, count);
        self.norm_2.forward(block.x.as_rows(), normed.part(0, count, 0));
        let wide_stride = row_stride(self.up.outputs());
        let mut wide = RowsMut::new(wide.room(count * wide_stride), wide_stride, count);
        self.up.forward(normed.as_rows(), wide.part(0, count, 0));
        element::bend(self.activation, wide.part(0, count, 0), padded(self.up.outputs()));
        self.down.forward(wide.as_rows(), out.part(0, count, 0));
        self.add(block, &out, self.gates.map(|(_, mlp)| mlp));
    }

    fn add(&self, block: &mut Block<'_>, out: &RowsMut<'_>, gate: Option<f32>) {
        let (count, hidden) = (block.rows.len(), self.out.outputs());
        let x = block.x.part(0, count, 0);
        match gate {
            None => element::add(x, out.as_rows(), hidden),
            Some(gate) => element::add_times(x, out.as_rows(), gate, hidden),
        }
    }
}
