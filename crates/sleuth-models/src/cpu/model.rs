use std::ops::Range;
use std::sync::Arc;

use sleuth_core::Pixels;

use super::angles::Angles;
use super::attention::View;
use super::decoder::{self, Layer, LayerShape, Project};
use super::embedding::Embedding;
use super::kv::{ImageKv, KvLayout, KvType};
use super::norm::RmsNorm;
use super::pass::{Decoder, Pass, Read, Sees};
use super::rows::{Rows, RowsMut};
use super::spread::Thin;
use super::team::{Scratch, Team};
use super::vision::VisionTower;
use super::weights::{Linear, Module};
use super::workspace::{Block, Widths, Workspace};
use super::{Done, NewPrefix, Work};
use crate::checkpoint::Checkpoint;
use crate::ops::{RopeTable, rope_frequencies};
use crate::paligemma::PaliGemmaConfig;
use crate::{LoadError, RewardHead, SuffixAttention};

/// PaliGemma with a reward head, its weights packed for the CPU once and shared by all workers.
///
/// Every reward is a function of image, prompt and response up to its token, down to the bit:
/// neighbours in a batch, cuts between appends, cached or computed prefixes and the number of
/// threads change nothing (see [`super`]).
#[derive(Debug)]
pub struct CpuModel {
    pub(super) config: PaliGemmaConfig,
    pub(super) attention: SuffixAttention,
    pub(super) vision: VisionTower,
    pub(super) projector: Linear,
    pub(super) embedding: Embedding,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: RmsNorm,
    pub(super) head: Vec<f32>,
    pub(super) head_bias: f32,
    kv: KvType,
    angles: Angles,
}

/// SigLIP's output for one image, before the projector: `[image tokens, vision hidden]`.
#[derive(Debug)]
pub struct ImageFeatures(Vec<f32>);

// === impl CpuModel ===

impl CpuModel {
    /// Packs a checkpoint's weights. Everything is checked: presence, shapes, finite values.
    pub fn load(
        config: &PaliGemmaConfig,
        checkpoint: &Arc<Checkpoint>,
        head: &RewardHead,
        attention: SuffixAttention,
        kv: KvType,
    ) -> Result<Self, LoadError> {
        Self::with_head(config, checkpoint, head.values()?, attention, kv)
    }

    /// With a head's weight and bias; the weight of a backbone that nobody scores with is empty.
    pub(super) fn with_head(
        config: &PaliGemmaConfig,
        checkpoint: &Arc<Checkpoint>,
        (head, head_bias): (Vec<f32>, f32),
        attention: SuffixAttention,
        kv: KvType,
    ) -> Result<Self, LoadError> {
        let (v, t) = (&config.vision_config, &config.text_config);
        let projector = Module::new(checkpoint, "multi_modal_projector");
        let shape = LayerShape::gemma(t);
        Ok(Self {
            vision: VisionTower::load(v, checkpoint)?,
            projector: projector.linear("linear", v.hidden_size, t.hidden_size, true)?,
            embedding: Embedding::load(
                checkpoint,
                (t.vocab_size, t.hidden_size),
                (t.hidden_size as f64).sqrt() as f32,
            )?,
            layers: (0..t.num_hidden_layers)
                .map(|depth| {
                    let path = format!("language_model.layers.{depth}");
                    Layer::load(&shape, &Module::new(checkpoint, &path))
                })
                .collect::<Result<_, _>>()?,
            norm: RmsNorm::load(
                &Module::new(checkpoint, "language_model"),
                "norm",
                t.hidden_size,
                shape.norm,
            )?,
            head,
            head_bias,
            attention,
            kv,
            angles: Angles::new(rope_frequencies(t.head_dim, t.rope_theta())),
            config: config.clone(),
        })
    }

    /// The config it was built from.
    pub fn config(&self) -> &PaliGemmaConfig {
        &self.config
    }

    /// What response tokens may attend to.
    pub fn attention(&self) -> SuffixAttention {
        self.attention
    }

    /// The type keys and values are stored in.
    pub fn kv(&self) -> KvType {
        self.kv
    }

    /// Bytes of packed weights.
    pub fn weight_bytes(&self) -> u64 {
        let decoder: u64 = self.layers.iter().map(Layer::bytes).sum();
        self.vision.bytes() + self.projector.bytes() + self.embedding.bytes() + decoder
    }

    /// SigLIP's output for each image. All are of the config's size.
    pub fn see(&self, space: &mut Workspace, images: &[&Pixels]) -> Vec<ImageFeatures> {
        self.vision.see(space, images).into_iter().map(ImageFeatures).collect()
    }

    /// Computes prefixes and scores responses in one packed pass without padding.
    ///
    /// Token ids are below the vocabulary's size. With [`SuffixAttention::Full`] a prefix depends
    /// on its response: only [`Self::score_full`] serves such a model.
    pub fn score(&self, space: &mut Workspace, work: Work<'_>) -> Result<Done, LoadError> {
        Pass::new(self, work).run(space, Read::Reward)
    }

    /// Logits of whole responses where everything sees everything; each is a sequence of its own.
    pub fn score_full(
        &self,
        space: &mut Workspace,
        sequences: &[(NewPrefix<'_>, &[u32])],
    ) -> Result<Vec<Vec<f32>>, LoadError> {
        let ids: Vec<Vec<u32>> =
            sequences.iter().map(|(prefix, response)| [prefix.prompt, response].concat()).collect();
        let whole = sequences
            .iter()
            .zip(&ids)
            .map(|((prefix, response), ids)| {
                (NewPrefix { features: prefix.features, prompt: ids }, response.len())
            })
            .collect();
        Pass::full(self, whole).run(space, Read::Reward).map(|done| done.logits)
    }

    /// Rows of an image in a prefix.
    pub fn image_tokens(&self) -> usize {
        self.config.vision_config.image_tokens()
    }

    /// Rows that memory for keys and values is taken for at a time.
    pub const KV_PAGE_ROWS: usize = super::kv::PAGE;

    /// Bytes of keys and values that `rows` rows of a prefix, or of a response that goes on, take.
    pub fn kv_bytes(&self, rows: usize) -> u64 {
        self.layout().bytes(rows)
    }
}

impl Decoder for CpuModel {
    type Features = ImageFeatures;
    /// transformers counts PaliGemma's positions from 1.
    const FIRST_POSITION: u32 = 1;
    const CAUSAL_PREFIX: bool = false;

    fn widths(&self) -> Widths {
        Widths::of(&self.config.text_config)
    }

    fn layout(&self) -> KvLayout {
        let heads = decoder::heads(&self.config.text_config);
        KvLayout {
            layers: self.layers.len(),
            heads: heads.key_value,
            dim: heads.dim,
            kind: self.kv,
        }
    }

    fn angles(&self, last: u32) -> Arc<RopeTable> {
        self.angles.up_to(last)
    }

    fn depth(&self) -> usize {
        self.layers.len()
    }

    fn sees(&self, layer: usize) -> Sees {
        Sees::Own(layer)
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

    fn image_rows(&self) -> usize {
        self.image_tokens()
    }

    /// As the projector gives them.
    fn embed_image(&self, features: &ImageFeatures, rows: Range<usize>, out: RowsMut<'_>) {
        let width = self.config.vision_config.hidden_size;
        let features = Rows::new(features.values(), width, 0).part(rows.start, rows.len(), 0);
        self.projector.forward(features, out);
    }

    fn image(&self, _: &ImageFeatures, _: &[u32]) -> Option<(ImageKv, usize)> {
        None
    }

    fn project(
        &self,
        layer: usize,
        block: &mut Block<'_>,
        what: Project,
        angles: (&RopeTable, &[u32]),
        scratch: &mut Scratch,
    ) {
        self.layers[layer].project(block, what, angles, scratch);
    }

    fn finish(
        &self,
        layer: usize,
        (views, _): (&[View<'_>], &[Range<usize>]),
        block: &mut Block<'_>,
        scratch: &mut Scratch,
    ) {
        self.layers[layer].finish(views, block, scratch);
    }

    fn project_thin(
        &self,
        layer: usize,
        block: &mut Block<'_>,
        angles: (&RopeTable, &[u32]),
        team: &Team,
        thin: &mut Thin,
    ) {
        self.layers[layer].project_thin(block, angles, team, thin);
    }

    fn finish_thin(
        &self,
        layer: usize,
        (views, _): (&[View<'_>], &[Range<usize>]),
        block: &mut Block<'_>,
        team: &Team,
        thin: &mut Thin,
    ) {
        self.layers[layer].finish_thin(views, block, team, thin);
    }
}

// === impl ImageFeatures ===

impl ImageFeatures {
    /// `[image tokens, vision hidden]`, row by row.
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        size_of_val(self.0.as_slice()) as u64
    }
}
