use std::ops::Range;

use sleuth_core::Pixels;

use super::attention::{Heads, Keys, View};
use super::encoder::{self, EncoderLayer, EncoderShape};
use super::kv::{KvLayout, KvType, SequenceKv};
use super::norm::LayerNorm;
use super::rows::{Rows, RowsMut};
use super::team::Scratch;
use super::weights::{Linear, Module, row_stride};
use super::workspace::{Block, Widths, Workspace};
use crate::checkpoint::Checkpoint;
use crate::paligemma::VisionConfig;
use crate::{Activation, LoadError};

/// SigLIP without its pooling head, packed for the CPU.
#[derive(Debug)]
pub(super) struct VisionTower {
    config: VisionConfig,
    patch: Linear,
    /// `[patches, hidden]`.
    positions: Vec<f32>,
    layers: Vec<EncoderLayer>,
    post_norm: LayerNorm,
}

// === impl VisionTower ===

impl VisionTower {
    pub(super) fn load(config: &VisionConfig, checkpoint: &Checkpoint) -> Result<Self, LoadError> {
        let (hidden, side) = (config.hidden_size, config.patch_size);
        let shape = EncoderShape {
            hidden,
            wide: config.intermediate_size,
            heads: heads(config),
            eps: config.layer_norm_eps,
            activation: Activation::GeluTanh,
            names: &encoder::SIGLIP,
            gated: false,
        };
        let embeddings = Module::new(checkpoint, "vision_tower.embeddings");
        let kernel = embeddings.values("patch_embedding.weight", (hidden, 3, side, side))?;
        let bias = embeddings.values("patch_embedding.bias", hidden)?;
        Ok(Self {
            patch: Linear::pack(&kernel, 3 * side * side, hidden, Some(bias))?,
            positions: embeddings
                .values("position_embedding.weight", (config.image_tokens(), hidden))?,
            layers: (0..config.num_hidden_layers)
                .map(|i| {
                    let path = format!("vision_tower.encoder.layers.{i}");
                    EncoderLayer::load(&shape, &Module::new(checkpoint, &path))
                })
                .collect::<Result<_, _>>()?,
            post_norm: LayerNorm::load(
                &Module::new(checkpoint, "vision_tower"),
                "post_layernorm",
                hidden,
                config.layer_norm_eps,
            )?,
            config: config.clone(),
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.patch.bytes() + self.layers.iter().map(EncoderLayer::bytes).sum::<u64>()
    }

    fn widths(&self) -> Widths {
        let hidden = self.config.hidden_size;
        Widths { hidden, query: hidden, key_value: hidden }
    }

    fn layout(&self) -> KvLayout {
        let heads = heads(&self.config);
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
                layer.finish(&views, &mut block, scratch);
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
        let n = self.config.patches_per_side();
        let stride = row_stride(inputs);
        let patches = scratch.wide.room(count * stride);
        for (row, patch) in block.rows.clone().zip(patches.chunks_exact_mut(stride)) {
            let at = row % tokens;
            let (top, left) = (at / n * side, at % n * side);
            gather(images[row / tokens], side, (top, left), &mut patch[..inputs]);
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

pub(super) fn heads(config: &VisionConfig) -> Heads {
    let heads = config.num_attention_heads;
    Heads { query: heads, key_value: heads, dim: config.head_dim() }
}

/// The square of `side` pixels of an image at `top`, `left`, channel by channel.
pub(super) fn gather(pixels: &Pixels, side: usize, (top, left): (usize, usize), out: &mut [f32]) {
    let (width, height) = (pixels.width() as usize, pixels.height() as usize);
    for (line, out) in out.chunks_exact_mut(side).enumerate() {
        let (channel, y) = (line / side, top + line % side);
        let start = (channel * height + y) * width + left;
        out.copy_from_slice(&pixels.values()[start..start + side]);
    }
}
