use std::ops::Range;
use std::sync::Arc;

use sleuth_core::Pixels;

use super::layer::{DecoderLayer, layers};
use super::tower::{Tiles, Tower};
use crate::backbone::PassError;
use crate::checkpoint::Checkpoint;
use crate::cpu::angles::Angles;
use crate::cpu::attention::{Heads, View};
use crate::cpu::decoder::{LayerShape, Project};
use crate::cpu::embedding::Embedding;
use crate::cpu::kv::{ImageKv, KvLayout, KvType, SequenceKv};
use crate::cpu::norm::RmsNorm;
use crate::cpu::pass::{Decoder, Pass, Read, Sees};
use crate::cpu::rows::{Rows, RowsMut};
use crate::cpu::spread::Thin;
use crate::cpu::team::{Scratch, Team};
use crate::cpu::weights::{Linear, Module};
use crate::cpu::workspace::{Block, Widths, Workspace};
use crate::cpu::{Done, Work};
use crate::mllama::{MllamaConfig, TextConfig};
use crate::ops::RopeTable;
use crate::{BeforeImage, LoadError, RewardHead};

/// Llama 3.2 Vision with a reward head, its weights packed for the CPU once and shared by all workers.
///
/// Every reward is a function of image, prompt and response up to its token, down to the bit, as
/// with [`CpuModel`](crate::cpu::CpuModel).
#[derive(Debug)]
pub struct MllamaCpu {
    pub(super) config: MllamaConfig,
    before_image: BeforeImage,
    tower: Tower,
    projector: Linear,
    embedding: Embedding,
    pub(super) layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    head: Vec<f32>,
    head_bias: f32,
    pub(super) kv: KvType,
    angles: Angles,
}

// === impl MllamaCpu ===

impl MllamaCpu {
    /// Rows that memory for keys and values is taken for at a time.
    pub const KV_PAGE_ROWS: usize = crate::cpu::CpuModel::KV_PAGE_ROWS;

    /// Packs a checkpoint's weights. Everything is checked: presence, shapes, finite values.
    pub fn load(
        config: &MllamaConfig,
        checkpoint: &Arc<Checkpoint>,
        head: &RewardHead,
        before_image: BeforeImage,
        kv: KvType,
    ) -> Result<Self, LoadError> {
        Self::with_head(config, checkpoint, head.values()?, before_image, kv)
    }

    /// With a head's weight and bias; the weight of a backbone that nobody scores with is empty.
    pub(in crate::cpu) fn with_head(
        config: &MllamaConfig,
        checkpoint: &Arc<Checkpoint>,
        (head, head_bias): (Vec<f32>, f32),
        before_image: BeforeImage,
        kv: KvType,
    ) -> Result<Self, LoadError> {
        let (v, t) = (&config.vision_config, &config.text_config);
        let (shape, hidden) = (layer_shape(t), t.hidden_size);
        let projector = Module::new(checkpoint, "multi_modal_projector");
        let projector_weight = projector.values("weight", (hidden, v.vision_output_dim))?;
        let projector_bias = projector.values("bias", hidden)?;
        Ok(Self {
            tower: Tower::load(v, checkpoint)?,
            projector: Linear::pack(
                &projector_weight,
                v.vision_output_dim,
                hidden,
                Some(projector_bias),
            )?,
            embedding: Embedding::load(checkpoint, (t.embedding_rows(), hidden), 1.0)?,
            layers: layers(t, &shape, checkpoint)?,
            norm: RmsNorm::load(
                &Module::new(checkpoint, "language_model"),
                "norm",
                hidden,
                shape.norm,
            )?,
            head,
            head_bias,
            before_image,
            kv,
            angles: Angles::new(t.rope_frequencies()),
            config: config.clone(),
        })
    }

    /// The config it was built from.
    pub fn config(&self) -> &MllamaConfig {
        &self.config
    }

    /// The type keys and values are stored in.
    pub fn kv(&self) -> KvType {
        self.kv
    }

    /// Bytes of packed weights and of the tower's tables.
    pub fn weight_bytes(&self) -> u64 {
        let layers: u64 = self.layers.iter().map(DecoderLayer::bytes).sum();
        self.tower.bytes() + self.projector.bytes() + self.embedding.bytes() + layers
    }

    /// What the layers that look at an image see of each. Pixels are canvases of whole tiles.
    pub fn see(
        &self,
        space: &mut Workspace,
        images: &[&Pixels],
    ) -> Result<Vec<ImageKv>, PassError> {
        // An image has thousands of rows: one at a time keeps all threads busy.
        images
            .iter()
            .map(|pixels| {
                let tiles = self.tiles(pixels)?;
                let states = self.tower.see(space, pixels, tiles);
                Ok(self.image_kv(space, &states, tiles))
            })
            .collect()
    }

    /// Computes prefixes and scores responses in one packed pass without padding. Token ids are
    /// below the embedding's rows.
    ///
    /// # Errors
    /// [`PassError::ImagePlaces`] for a new prefix whose prompt does not hold the image once.
    pub fn score(&self, space: &mut Workspace, work: Work<'_, ImageKv>) -> Result<Done, PassError> {
        for prefix in &work.prefixes {
            self.check_prompt(prefix.prompt)?;
        }
        Ok(Pass::new(self, work).run(space, Read::Reward)?)
    }

    /// Whether a prompt holds its image once.
    pub(in crate::cpu) fn check_prompt(&self, prompt: &[u32]) -> Result<(), PassError> {
        let image = self.config.image_token_index;
        let found = prompt.iter().filter(|id| **id == image).count();
        if found == 1 { Ok(()) } else { Err(PassError::ImagePlaces { found }) }
    }

    /// How an image lies in tiles.
    pub(super) fn tiles(&self, pixels: &Pixels) -> Result<Tiles, PassError> {
        let config = &self.config.vision_config;
        Tiles::of(config, pixels).ok_or_else(|| PassError::Canvas {
            height: pixels.height(),
            width: pixels.width(),
            tile: config.image_size,
        })
    }

    /// As [`Self::score`], the states after the final norm.
    #[cfg(test)]
    pub(super) fn states(
        &self,
        space: &mut Workspace,
        work: Work<'_, ImageKv>,
    ) -> Result<Done, LoadError> {
        Pass::new(self, work).run(space, Read::State)
    }

    /// The tower's output for an image, and what the projector makes of it.
    #[cfg(test)]
    pub(super) fn image_states(
        &self,
        space: &mut Workspace,
        pixels: &Pixels,
    ) -> (Vec<f32>, Vec<f32>) {
        let config = &self.config.vision_config;
        let tiles = Tiles::of(config, pixels).unwrap();
        let states = self.tower.see(space, pixels, tiles);
        let rows = config.image_tokens();
        let Workspace { team, rows: buffers, .. } = space;
        let mut packed = buffers.pack(self.image_widths(), rows);
        let every = 0..rows;
        team.run(packed.blocks(std::slice::from_ref(&every), 1), |mut block, _| {
            self.project_states(&states, &mut block);
        });
        let projected = packed.states(every);
        (states, projected)
    }

    /// Bytes of keys and values that `rows` rows of a prompt, or of a response that goes on, take.
    pub fn kv_bytes(&self, rows: usize) -> u64 {
        self.layout().bytes(rows)
    }

    /// Rows of an image's keys and values that are kept: those of its tiles; where text before the
    /// image attends, all.
    fn image_rows_kept(&self, tiles: Tiles) -> usize {
        let config = &self.config.vision_config;
        match self.before_image {
            BeforeImage::Attends => config.image_tokens(),
            BeforeImage::Skips => tiles.real * config.tile_tokens(),
        }
    }

    fn image_kv(&self, space: &mut Workspace, states: &[f32], tiles: Tiles) -> ImageKv {
        let rows = self.image_rows_kept(tiles);
        let Workspace { team, rows: buffers, .. } = space;
        let mut packed = buffers.pack(self.image_widths(), rows);
        let every = 0..rows;
        let all = std::slice::from_ref(&every);
        team.run(packed.blocks(all, team.threads()), |mut block, _| {
            self.project_states(states, &mut block);
        });
        let mut kv = SequenceKv::new(self.image_layout());
        for layer in &self.layers {
            let DecoderLayer::Image(place, layer) = layer else { continue };
            team.run(packed.blocks(all, team.threads()), |mut block, _| layer.see(&mut block));
            let (key, value) = packed.key_values(&every);
            kv.write(*place, key, value);
        }
        kv.grow(rows);
        let blind = if self.before_image == BeforeImage::Attends { rows } else { 0 };
        ImageKv::new(kv, tiles.real * self.config.vision_config.tile_tokens(), blind)
    }

    /// The projector on those of an image's states that lie in the block.
    fn project_states(&self, states: &[f32], block: &mut Block<'_>) {
        let (from, count) = (block.rows.start, block.rows.len());
        let width = self.config.vision_config.vision_output_dim;
        let states = Rows::new(states, width, 0).part(from, count, 0);
        self.projector.forward(states, block.x.part(0, count, 0));
    }

    /// Of the image's states on their way to keys and values; nobody asks for queries.
    pub(super) fn image_widths(&self) -> Widths {
        Widths { query: 0, ..self.widths() }
    }

    /// Of an image's keys and values.
    pub(super) fn image_layout(&self) -> KvLayout {
        let layers = self.config.text_config.cross_attention_layers.len();
        KvLayout { layers, ..self.layout() }
    }
}

impl Decoder for MllamaCpu {
    type Features = ImageKv;
    const FIRST_POSITION: u32 = 0;
    const CAUSAL_PREFIX: bool = true;

    fn widths(&self) -> Widths {
        widths(&self.config.text_config)
    }

    fn layout(&self) -> KvLayout {
        Self::layout_of(&self.config, self.kv)
    }

    fn angles(&self, last: u32) -> Arc<RopeTable> {
        self.angles.up_to(last)
    }

    fn depth(&self) -> usize {
        self.layers.len()
    }

    fn sees(&self, layer: usize) -> Sees {
        match self.layers[layer] {
            DecoderLayer::Text(place, _) => Sees::Own(place),
            DecoderLayer::Image(place, _) => Sees::Image(place),
        }
    }

    fn embedding(&self) -> &Embedding {
        &self.embedding
    }

    fn norm(&self) -> &RmsNorm {
        &self.norm
    }

    fn head(&self) -> (&[f32], f32) {
        (&self.head, self.head_bias)
    }

    /// The image has no rows among the text's.
    fn image_rows(&self) -> usize {
        0
    }

    fn embed_image(&self, _: &ImageKv, _: Range<usize>, _: RowsMut<'_>) {}

    fn image(&self, features: &ImageKv, prompt: &[u32]) -> Option<(ImageKv, usize)> {
        let image = self.config.image_token_index;
        let before = prompt.iter().position(|id| *id == image).unwrap_or(prompt.len());
        Some((features.clone(), before))
    }

    fn project(
        &self,
        layer: usize,
        block: &mut Block<'_>,
        what: Project,
        angles: (&RopeTable, &[u32]),
        scratch: &mut Scratch,
    ) {
        match &self.layers[layer] {
            DecoderLayer::Text(_, layer) => layer.project(block, what, angles, scratch),
            DecoderLayer::Image(_, layer) if what == Project::All => layer.project(block, scratch),
            // It has no keys and values of its own.
            DecoderLayer::Image(..) => {}
        }
    }

    fn finish(
        &self,
        layer: usize,
        seen: (&[View<'_>], &[Range<usize>]),
        block: &mut Block<'_>,
        scratch: &mut Scratch,
    ) {
        match &self.layers[layer] {
            DecoderLayer::Text(_, layer) => layer.finish(seen.0, block, scratch),
            DecoderLayer::Image(_, layer) => {
                let attend = self.before_image == BeforeImage::Attends;
                layer.finish(seen, attend, block, scratch);
            }
        }
    }

    fn project_thin(
        &self,
        layer: usize,
        block: &mut Block<'_>,
        angles: (&RopeTable, &[u32]),
        team: &Team,
        thin: &mut Thin,
    ) {
        match &self.layers[layer] {
            DecoderLayer::Text(_, layer) => layer.project_thin(block, angles, team, thin),
            DecoderLayer::Image(_, layer) => layer.project_thin(block, team, thin),
        }
    }

    fn finish_thin(
        &self,
        layer: usize,
        seen: (&[View<'_>], &[Range<usize>]),
        block: &mut Block<'_>,
        team: &Team,
        thin: &mut Thin,
    ) {
        match &self.layers[layer] {
            DecoderLayer::Text(_, layer) => layer.finish_thin(seen.0, block, team, thin),
            DecoderLayer::Image(_, layer) => {
                let attend = self.before_image == BeforeImage::Attends;
                layer.finish_thin(seen, attend, block, team, thin);
            }
        }
    }
}

fn layer_shape(config: &TextConfig) -> LayerShape {
    LayerShape {
        hidden: config.hidden_size,
        wide: config.intermediate_size,
        heads: heads(config),
        norm: (config.rms_norm_eps, 0.0),
        activation: config.hidden_act,
    }
}

pub(super) fn heads(config: &TextConfig) -> Heads {
    Heads {
        query: config.num_attention_heads,
        key_value: config.num_key_value_heads,
        dim: config.head_dim(),
    }
}

pub(super) fn widths(config: &TextConfig) -> Widths {
    let dim = config.head_dim();
    Widths {
        hidden: config.hidden_size,
        query: config.num_attention_heads * dim,
        key_value: config.num_key_value_heads * dim,
    }
}
