use std::ops::Range;

use sleuth_core::Pixels;

use super::attention::{Heads, Keys, View};
use super::element;
use super::kv::{KvLayout, KvType, SequenceKv};
use super::rows::{Rows, RowsMut};
use super::team::Scratch;
use super::weights::{Linear, Module, padded, row_stride};
use super::workspace::{Block, Widths, Workspace};
use crate::LoadError;
use crate::checkpoint::Checkpoint;
use crate::paligemma::VisionConfig;

/// SigLIP without its pooling head, packed for the CPU.
#[derive(Debug)]
pub(super) struct VisionTower {
    config: VisionConfig,
    patch: Linear,
    /// `[patches, hidden]`.
    positions: Vec<f32>,
    layers: Vec<Layer>,
    post_norm: LayerNorm,
}

#[derive(Debug)]
struct Layer {
    norm_1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    norm_2: LayerNorm,
    up: Linear,
    down: Linear,
}

#[derive(Debug)]
struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

// === impl VisionTower ===

impl VisionTower {
    pub(super) fn load(config: &VisionConfig, checkpoint: &Checkpoint) -> Result<Self, LoadError> {
        let (hidden, side) = (config.hidden_size, config.patch_size);
        let embeddings = Module::new(checkpoint, "vision_tower.embeddings");
        let kernel = embeddings.values("patch_embedding.weight", (hidden, 3, side, side))?;
        let bias = embeddings.values("patch_embedding.bias", hidden)?;
        Ok(Self {
            patch: Linear::pack(&kernel, 3 * side * side, hidden, Some(bias))?,
            positions: embeddings
                .values("position_embedding.weight", (config.image_tokens(), hidden))?,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::load(config, checkpoint, i))
                .collect::<Result<_, _>>()?,
            post_norm: LayerNorm::load(
                config,
                &Module::new(checkpoint, "vision_tower"),
                "post_layernorm",
            )?,
            config: config.clone(),
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.patch.bytes() + self.layers.iter().map(Layer::bytes).sum::<u64>()
    }

    fn heads(&self) -> Heads {
        let heads = self.config.num_attention_heads;
        Heads { query: heads, key_value: heads, dim: self.config.head_dim() }
    }

    fn widths(&self) -> Widths {
        let hidden = self.config.hidden_size;
        Widths { hidden, query: hidden, key_value: hidden }
    }

    fn layout(&self) -> KvLayout {
        let heads = self.heads();
        KvLayout { layers: 1, heads: heads.key_value, dim: heads.dim, kind: KvType::F32 }
    }

    /// Each image's patches, `[patches, hidden]`, row by row. Pixels are of the config's size.
    pub(super) fn see(&self, space: &mut Workspace, images: &[&Pixels]) -> Vec<Vec<f32>> {
        let (tokens, hidden) = (self.config.image_tokens(), self.config.hidden_size);
        let rows = images.len() * tokens;
        let Workspace { team, rows: buffers, .. } = space;
        let mut packed = buffers.pack(self.widths(), rows);
        let every = 0..rows;
        let all = std::slice::from_ref(&every);
        let first = self.layers.first();
        team.run(packed.blocks(all, team.threads()), |mut block, scratch| {
            self.embed(images, &mut block, scratch);
            if let Some(layer) = first {
                layer.project(&mut block, scratch);
            }
        });
        let mut kv: Vec<_> = images.iter().map(|_| SequenceKv::new(self.layout())).collect();
        for (depth, layer) in self.layers.iter().enumerate() {
            let next = self.layers.get(depth + 1);
            team.run(kv.iter_mut().enumerate().collect(), |(image, kv), _| {
                let (key, value) = packed.key_values(&self.rows_of(image));
                kv.write(0, key, value);
            });
            let views = self.views(&kv);
            team.run(packed.blocks(all, team.threads()), |mut block, scratch| {
                layer.finish(self.heads(), &views, &mut block, scratch);
                if let Some(next) = next {
                    next.project(&mut block, scratch);
                }
            });
        }
        team.run(packed.blocks(all, team.threads()), |mut block, scratch| {
            let stride = row_stride(hidden);
            let count = block.rows.len();
            let mut normed = RowsMut::new(scratch.normed.room(count * stride), stride, count);
            self.post_norm.forward(block.x.as_rows(), normed.part(0, count, 0));
            for row in 0..count {
                block.x.row_mut(row)[..hidden].copy_from_slice(&normed.row(row)[..hidden]);
            }
        });
        (0..images.len()).map(|image| packed.states(self.rows_of(image))).collect()
    }

    /// Bytes of one layer's keys and values of `images` images, and of the features they become.
    pub(super) fn pass_bytes(&self, images: usize) -> u64 {
        let tokens = self.config.image_tokens();
        let features = (tokens * self.config.hidden_size * size_of::<f32>()) as u64;
        images as u64 * (self.layout().bytes(tokens) + features)
    }

    fn rows_of(&self, image: usize) -> Range<usize> {
        let tokens = self.config.image_tokens();
        image * tokens..(image + 1) * tokens
    }

    fn views<'a>(&self, kv: &'a [SequenceKv]) -> Vec<View<'a>> {
        let rows = self.config.image_tokens();
        kv.iter()
            .enumerate()
            .map(|(image, kv)| View {
                rows: self.rows_of(image),
                shared: None,
                own: Keys { kv, layer: 0, rows },
                past: 0,
                causal: false,
            })
            .collect()
    }

    /// The convolution's stride equals its kernel, so it is one product over flattened patches.
    fn embed(&self, images: &[&Pixels], block: &mut Block<'_>, scratch: &mut Scratch) {
        let (tokens, side) = (self.config.image_tokens(), self.config.patch_size);
        let (inputs, count) = (3 * side * side, block.rows.len());
        let stride = row_stride(inputs);
        let patches = scratch.wide.room(count * stride);
        for (row, patch) in block.rows.clone().zip(patches.chunks_exact_mut(stride)) {
            gather(images[row / tokens], &self.config, row % tokens, &mut patch[..inputs]);
        }
        self.patch.forward(Rows::new(patches, stride, count), block.x.part(0, count, 0));
        let hidden = self.config.hidden_size;
        for (row, at) in block.rows.clone().enumerate() {
            let position = &self.positions[at % tokens * hidden..][..hidden];
            for (x, p) in block.x.row_mut(row).iter_mut().zip(position) {
                *x += p;
            }
        }
    }
}

/// Patch `at` of an image, channel by channel.
fn gather(pixels: &Pixels, config: &VisionConfig, at: usize, out: &mut [f32]) {
    let (side, n) = (config.patch_size, config.patches_per_side());
    let (width, height) = (pixels.width() as usize, pixels.height() as usize);
    let (top, left) = (at / n * side, at % n * side);
    for (line, out) in out.chunks_exact_mut(side).enumerate() {
        let (channel, y) = (line / side, top + line % side);
        let start = (channel * height + y) * width + left;
        out.copy_from_slice(&pixels.values()[start..start + side]);
    }
}

// === impl Layer ===

impl Layer {
    fn load(
        config: &VisionConfig,
        checkpoint: &Checkpoint,
        depth: usize,
    ) -> Result<Self, LoadError> {
        let path = format!("vision_tower.encoder.layers.{depth}");
        let module = Module::new(checkpoint, &path);
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let square = |name: &str| module.linear(&format!("self_attn.{name}"), hidden, hidden, true);
        Ok(Self {
            norm_1: LayerNorm::load(config, &module, "layer_norm1")?,
            query: square("q_proj")?,
            key: square("k_proj")?,
            value: square("v_proj")?,
            out: square("out_proj")?,
            norm_2: LayerNorm::load(config, &module, "layer_norm2")?,
            up: module.linear("mlp.fc1", hidden, wide, true)?,
            down: module.linear("mlp.fc2", wide, hidden, true)?,
        })
    }

    fn bytes(&self) -> u64 {
        [&self.query, &self.key, &self.value, &self.out, &self.up, &self.down]
            .into_iter()
            .map(Linear::bytes)
            .sum()
    }

    /// Queries, keys and values of a block's rows.
    fn project(&self, block: &mut Block<'_>, scratch: &mut Scratch) {
        let count = block.rows.len();
        let stride = row_stride(self.query.outputs());
        let mut normed = RowsMut::new(scratch.normed.room(count * stride), stride, count);
        self.norm_1.forward(block.x.as_rows(), normed.part(0, count, 0));
        self.query.forward(normed.as_rows(), block.query.part(0, count, 0));
        self.key.forward(normed.as_rows(), block.key.part(0, count, 0));
        self.value.forward(normed.as_rows(), block.value.part(0, count, 0));
    }

    /// The rest of the layer: attention, output projection, MLP.
    fn finish(
        &self,
        heads: Heads,
        views: &[View<'_>],
        block: &mut Block<'_>,
        scratch: &mut Scratch,
    ) {
        let (count, hidden) = (block.rows.len(), self.out.outputs());
        let stride = row_stride(hidden);
        let Scratch { normed, attended, wide, out, attention, .. } = scratch;
        let mut attended = RowsMut::new(attended.room(count * stride), stride, count);
        let queries = block.query.as_rows();
        heads.attend(block.rows.clone(), queries, views, attention, attended.part(0, count, 0));
        let mut out = RowsMut::new(out.room(count * stride), stride, count);
        self.out.forward(attended.as_rows(), out.part(0, count, 0));
        element::add(block.x.part(0, count, 0), out.as_rows(), hidden);
        let mut normed = RowsMut::new(normed.room(count * stride), stride, count);
        self.norm_2.forward(block.x.as_rows(), normed.part(0, count, 0));
        let wide_stride = row_stride(self.up.outputs());
        let mut wide = RowsMut::new(wide.room(count * wide_stride), wide_stride, count);
        self.up.forward(normed.as_rows(), wide.part(0, count, 0));
        element::gelu_in_place(wide.part(0, count, 0), padded(self.up.outputs()));
        self.down.forward(wide.as_rows(), out.part(0, count, 0));
        element::add(block.x.part(0, count, 0), out.as_rows(), hidden);
    }
}

// === impl LayerNorm ===

impl LayerNorm {
    fn load(config: &VisionConfig, module: &Module<'_>, name: &str) -> Result<Self, LoadError> {
        let hidden = config.hidden_size;
        Ok(Self {
            weight: module.values(&format!("{name}.weight"), hidden)?,
            bias: module.values(&format!("{name}.bias"), hidden)?,
            eps: config.layer_norm_eps as f32,
        })
    }

    fn forward(&self, x: Rows<'_>, out: RowsMut<'_>) {
        element::layer_norm(x, (&self.weight, &self.bias), self.eps, out);
    }
}
