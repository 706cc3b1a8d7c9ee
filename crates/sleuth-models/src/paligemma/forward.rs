use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::config::PaliGemmaConfig;
use super::decoder::{KeyValues, Layer, RmsNorm};
use super::linear::Linear;
use super::vision::VisionTower;
use crate::ops::{RopeTable, RowKeys, Segment};

/// Rows of responses that share one attention product. Responses are packed into tiles of about
/// this many rows, so that the part of the product that lies between different responses stays
/// small.
const TILE_ROWS: usize = 128;
/// transformers counts PaliGemma's positions from 1.
const FIRST_POSITION: u32 = 1;

/// The backbone: vision tower, projector and decoder, without a language head.
#[derive(Clone, Debug)]
pub struct PaliGemma {
    config: PaliGemmaConfig,
    vision: VisionTower,
    projector: Linear,
    embedding: Tensor,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: RmsNorm,
}

/// Responses behind one image and prompt.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// The prefix.
    pub prefix: Prefix<'a>,
    /// Token ids of each response; none empty.
    pub responses: Vec<&'a [u32]>,
}

/// Where a group's prefix comes from.
#[derive(Clone, Copy, Debug)]
pub enum Prefix<'a> {
    /// Rows still to be computed: projected image rows `[image tokens, hidden]`, then prompt ids.
    New {
        /// From [`PaliGemma::project`].
        image: &'a Tensor,
        /// `<bos>`, prompt, newline.
        prompt: &'a [u32],
    },
    /// Computed before.
    Cached(&'a PrefixKv),
}

/// Keys and values of one prefix in every layer. Cheap to clone; immutable.
#[derive(Clone, Debug)]
pub struct PrefixKv {
    layers: Arc<[KeyValues]>,
    rows: usize,
}

/// Whether the final states of prefix rows are wanted. Scoring needs none; a language loss needs
/// the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixStates {
    /// The last layer computes only keys and values for them.
    Drop,
    /// They are returned.
    Keep,
}

/// What a forward pass gives.
#[derive(Debug)]
pub struct Output {
    /// States after the final norm at every response token's own position, groups and responses in
    /// order: `[Σ response tokens, hidden]`.
    pub responses: Tensor,
    /// With [`PrefixStates::Keep`]: the states of all new prefix rows, groups in order.
    pub prefixes: Option<Tensor>,
    /// The prefix of each group.
    pub kv: Vec<PrefixKv>,
}

/// Where each group's rows lie in the packed rows: all new prefixes first, then all responses.
struct Layout {
    groups: Vec<GroupRows>,
    prefix_rows: usize,
    rows: usize,
    positions: Vec<u32>,
}

struct GroupRows {
    /// First packed row of a new prefix; `None` for a cached one.
    new_prefix: Option<usize>,
    prefix_len: usize,
    tiles: Vec<Tile>,
}

/// Consecutive responses of one group.
struct Tile {
    start: usize,
    rows: usize,
    /// Keys: the prefix, then the tile's own rows.
    visible: Arc<[RowKeys]>,
}

// === impl PaliGemma ===

impl PaliGemma {
    /// Builds the model from `vb`, whose names are canonical (see
    /// [`crate::checkpoint::canonical_name`]).
    pub fn load(config: &PaliGemmaConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let (v, t) = (&config.vision_config, &config.text_config);
        let decoder = vb.pp("language_model");
        Ok(Self {
            vision: VisionTower::load(v, &vb.pp("vision_tower"))?,
            projector: Linear::with_bias(
                v.hidden_size,
                t.hidden_size,
                &vb.pp("multi_modal_projector.linear"),
            )?,
            embedding: decoder.pp("embed_tokens").get((t.vocab_size, t.hidden_size), "weight")?,
            layers: (0..t.num_hidden_layers)
                .map(|i| Layer::load(t, &decoder.pp("layers").pp(i)))
                .collect::<Result<_>>()?,
            norm: RmsNorm::load(t, &decoder.pp("norm"))?,
            config: config.clone(),
        })
    }

    /// The config it was built from.
    pub fn config(&self) -> &PaliGemmaConfig {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// The embedding, which is also the language head: `[vocab, hidden]`.
    pub fn embedding(&self) -> &Tensor {
        &self.embedding
    }

    /// SigLIP's output, `[images, 3, side, side]` to `[images, image tokens, vision hidden]`.
    pub fn see(&self, pixels: &Tensor) -> Result<Tensor> {
        self.vision.forward(pixels)
    }

    /// The projector, `[image tokens, vision hidden]` to `[image tokens, hidden]`; raw, unscaled.
    pub fn project(&self, features: &Tensor) -> Result<Tensor> {
        self.projector.forward(features)
    }

    /// One packed pass over all new prefixes and all responses of all groups, without padding.
    ///
    /// Prefix rows see their whole prefix and nothing else; a response row sees its prefix and its
    /// own response up to itself.
    pub fn forward(&self, groups: &[Group<'_>], keep: PrefixStates) -> Result<Output> {
        let layout = Layout::new(groups, self.config.vision_config.image_tokens());
        let text = &self.config.text_config;
        let table =
            RopeTable::new(layout.positions.iter().copied(), text.head_dim, text.rope_theta());
        let mut x = self.embed(groups)?;
        let mut kv: Vec<Vec<KeyValues>> = groups.iter().map(|_| Vec::new()).collect();
        let last = self.layers.len() - 1;
        for (depth, layer) in self.layers.iter().enumerate() {
            let normed = layer.normed_input(&x)?;
            let own = layer.key_values(&normed, &table)?;
            let prefixes = prefix_key_values(groups, &layout, &own, depth)?;
            // Nothing reads the prefix rows of the last layer but through their keys and values.
            let skip =
                if depth == last && keep == PrefixStates::Drop { layout.prefix_rows } else { 0 };
            if skip == layout.rows {
                x = x.narrow(0, 0, 0)?;
            } else {
                let kept = layout.rows - skip;
                let query = layer.queries(&normed.narrow(0, skip, kept)?, &table.from_row(skip))?;
                let attended = match layout.segments(skip).filter(|_| query.device().is_cpu()) {
                    Some(segments) => layer.attend_packed(&query, &own, &segments)?,
                    None => attend(layer, &layout, &query, &own, &prefixes, skip)?,
                };
                x = layer.finish(&x.narrow(0, skip, kept)?, &attended)?;
            }
            for (kv, prefix) in kv.iter_mut().zip(prefixes) {
                kv.push(prefix);
            }
        }
        self.output(&x, &layout, keep, kv)
    }

    fn output(
        &self,
        x: &Tensor,
        layout: &Layout,
        keep: PrefixStates,
        kv: Vec<Vec<KeyValues>>,
    ) -> Result<Output> {
        let states = if x.dim(0)? == 0 { x.clone() } else { self.norm.forward(x)? };
        let (prefixes, responses) = match keep {
            PrefixStates::Drop => (None, states),
            PrefixStates::Keep => (
                Some(states.narrow(0, 0, layout.prefix_rows)?),
                states.narrow(0, layout.prefix_rows, layout.rows - layout.prefix_rows)?,
            ),
        };
        let kv = kv
            .into_iter()
            .zip(&layout.groups)
            .map(|(layers, group)| PrefixKv { layers: layers.into(), rows: group.prefix_len })
            .collect();
        Ok(Output { responses, prefixes, kv })
    }

    /// Tokens as layer 0 takes them, times `√hidden`: `[tokens, hidden]`, f32.
    pub(crate) fn embed_tokens(&self, ids: &[u32]) -> Result<Tensor> {
        let scale = (self.config.text_config.hidden_size as f64).sqrt();
        let ids = Tensor::from_slice(ids, ids.len(), self.device())?;
        self.embedding.index_select(&ids, 0)?.to_dtype(DType::F32)? * scale
    }

    /// Layer 0's input: image rows as they are, text rows times `√hidden`.
    fn embed(&self, groups: &[Group<'_>]) -> Result<Tensor> {
        let mut rows = Vec::new();
        for group in groups {
            if let Prefix::New { image, prompt } = group.prefix {
                rows.push(image.clone());
                if !prompt.is_empty() {
                    rows.push(self.embed_tokens(prompt)?);
                }
            }
        }
        let ids: Vec<u32> = groups.iter().flat_map(|g| g.responses.concat()).collect();
        if !ids.is_empty() {
            rows.push(self.embed_tokens(&ids)?);
        }
        Tensor::cat(&rows, 0)
    }
}

/// Each group's prefix in this layer: cut from the rows just computed, or from the cache.
fn prefix_key_values(
    groups: &[Group<'_>],
    layout: &Layout,
    own: &KeyValues,
    depth: usize,
) -> Result<Vec<KeyValues>> {
    groups
        .iter()
        .zip(&layout.groups)
        .map(|(group, rows)| match (group.prefix, rows.new_prefix) {
            (Prefix::Cached(kv), _) => Ok(kv.layers[depth].clone()),
            (Prefix::New { .. }, start) => own.rows(start.unwrap_or(0), rows.prefix_len),
        })
        .collect()
}

/// Attention of all packed rows from `skip` on, in order.
fn attend(
    layer: &Layer,
    layout: &Layout,
    query: &Tensor,
    own: &KeyValues,
    prefixes: &[KeyValues],
    skip: usize,
) -> Result<Tensor> {
    let mut parts = Vec::new();
    if skip == 0 {
        for (group, kv) in layout.groups.iter().zip(prefixes) {
            if let Some(start) = group.new_prefix {
                let all = group.prefix_len as u32;
                let visible = [RowKeys { shared: all, own_start: all, own_end: all }].into();
                parts.push(layer.attend(
                    &query.narrow(0, start, group.prefix_len)?,
                    kv,
                    &visible,
                )?);
            }
        }
    }
    for (group, kv) in layout.groups.iter().zip(prefixes) {
        for tile in &group.tiles {
            let keys = kv.then(&own.rows(tile.start, tile.rows)?)?;
            let rows = query.narrow(0, tile.start - skip, tile.rows)?;
            parts.push(layer.attend(&rows, &keys, &tile.visible)?);
        }
    }
    Tensor::cat(&parts, 0)
}

// === impl Layout ===

impl Layout {
    fn new(groups: &[Group<'_>], image_tokens: usize) -> Self {
        let mut positions = Vec::new();
        let mut placed = Vec::with_capacity(groups.len());
        for group in groups {
            let (new_prefix, prefix_len) = match group.prefix {
                Prefix::Cached(kv) => (None, kv.rows),
                Prefix::New { prompt, .. } => {
                    let len = image_tokens + prompt.len();
                    let start = positions.len();
                    positions.extend((0..len as u32).map(|p| p + FIRST_POSITION));
                    (Some(start), len)
                }
            };
            placed.push(GroupRows { new_prefix, prefix_len, tiles: Vec::new() });
        }
        let prefix_rows = positions.len();
        for (group, rows) in groups.iter().zip(&mut placed) {
            for responses in tiles(&group.responses) {
                rows.tiles.push(Tile::new(positions.len(), rows.prefix_len, responses));
                for response in responses {
                    let first = rows.prefix_len as u32 + FIRST_POSITION;
                    positions.extend((0..response.len() as u32).map(|p| p + first));
                }
            }
        }
        Self { groups: placed, prefix_rows, rows: positions.len(), positions }
    }

    /// The attention of all rows from `skip` on, where every key is among the packed rows; `None`
    /// where a prefix comes from a cache. `skip` is 0 or the number of prefix rows.
    fn segments(&self, skip: usize) -> Option<Arc<[Segment]>> {
        let mut segments = Vec::new();
        for group in &self.groups {
            let start = group.new_prefix?;
            let prefix = start..start + group.prefix_len;
            if skip == 0 {
                segments.push(Segment::closed(prefix.clone()));
            }
            segments.extend(group.tiles.iter().map(|tile| Segment {
                queries: tile.start - skip..tile.start - skip + tile.rows,
                shared: prefix.clone(),
                own: tile.start..tile.start + tile.rows,
                visible: Arc::clone(&tile.visible),
            }));
        }
        Some(segments.into())
    }
}

/// Cuts responses into runs of about [`TILE_ROWS`] rows; a longer response is a run of its own.
fn tiles<'a, 'b>(responses: &'b [&'a [u32]]) -> Vec<&'b [&'a [u32]]> {
    let mut out = Vec::new();
    let (mut start, mut rows) = (0, 0);
    for (i, response) in responses.iter().enumerate() {
        if i > start && rows + response.len() > TILE_ROWS {
            out.push(&responses[start..i]);
            (start, rows) = (i, 0);
        }
        rows += response.len();
    }
    if start < responses.len() {
        out.push(&responses[start..]);
    }
    out
}

// === impl Tile ===

impl Tile {
    fn new(start: usize, prefix_len: usize, responses: &[&[u32]]) -> Self {
        let shared = prefix_len as u32;
        let mut visible = Vec::new();
        let mut own_start = shared;
        for response in responses {
            visible.extend((1..=response.len() as u32).map(|seen| RowKeys {
                shared,
                own_start,
                own_end: own_start + seen,
            }));
            own_start += response.len() as u32;
        }
        Self { start, rows: visible.len(), visible: visible.into() }
    }
}

// === impl PrefixKv ===

impl PrefixKv {
    /// Rows of the prefix: image tokens and prompt tokens.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.layers
            .iter()
            .map(|kv| {
                (kv.key.elem_count() + kv.value.elem_count()) * kv.key.dtype().size_in_bytes()
            })
            .sum()
    }
}
