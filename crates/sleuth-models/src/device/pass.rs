mod layout;

use std::sync::Arc;

use candle_core::{D, DType, Result, Tensor};

use self::layout::{Layout, Response, Shared, Tile};
use super::attention::{Attention, Own};
use super::{DeviceFeatures, DeviceModel, DevicePrefix, DeviceSuffix};
use crate::backbone::{Done, Work};
use crate::cpu::KvType;
use crate::ops::RopeTable;
use crate::paligemma::{KeyValues, Layer};

/// One forward pass of the decoder: all new prefixes, then all responses, as packed rows.
pub(super) struct Pass<'a> {
    model: &'a DeviceModel,
    layout: Layout<'a>,
    /// Cosines and sines of every packed row, `[rows, 1, head_dim / 2]`.
    angles: (Tensor, Tensor),
    /// What the rows of each tile see of their own keys.
    masks: Vec<Tensor>,
}

/// Keys and values of all layers so far.
struct Computed {
    /// Of each new prefix.
    prefixes: Vec<Vec<KeyValues>>,
    /// Of each response that goes on, with what was kept before.
    responses: Vec<Vec<KeyValues>>,
}

// === impl Pass ===

impl<'a> Pass<'a> {
    pub(super) fn new(
        model: &'a DeviceModel,
        work: Work<'a, DeviceFeatures, DevicePrefix, DeviceSuffix>,
    ) -> Result<Self> {
        let layout = Layout::new(work, model.backbone.config().vision_config.image_tokens());
        let text = &model.backbone.config().text_config;
        let positions = layout.positions.iter().copied();
        let table = RopeTable::new(positions, text.head_dim, text.rope_theta());
        let masks = layout.tiles.iter().map(|tile| tile.mask(model.device()));
        Ok(Self {
            angles: table.tensors(model.device())?,
            masks: masks.collect::<Result<_>>()?,
            layout,
            model,
        })
    }

    pub(super) fn run(self) -> Result<Done<DevicePrefix, DeviceSuffix>> {
        let layers = &self.model.backbone.layers;
        let mut computed = Computed {
            prefixes: self.layout.prefixes.iter().map(|_| Vec::new()).collect(),
            responses: self.layout.responses.iter().map(|_| Vec::new()).collect(),
        };
        let mut x = self.embed()?;
        for (depth, layer) in layers.iter().enumerate() {
            // Nothing reads the prefix rows of the last layer but through their keys and values.
            let silent = if depth + 1 == layers.len() { self.layout.prefix_rows } else { 0 };
            x = self.layer(depth, layer, &x, silent, &mut computed)?;
        }
        self.finish(&x, computed)
    }

    /// Layer 0's input.
    fn embed(&self) -> Result<Tensor> {
        let backbone = &self.model.backbone;
        let mut rows = Vec::new();
        for (prefix, _) in &self.layout.prefixes {
            rows.push(backbone.project(&prefix.features.0)?);
            rows.push(backbone.embed_tokens(prefix.prompt)?);
        }
        let ids: Vec<u32> =
            self.layout.responses.iter().flat_map(|r| r.tokens.iter().copied()).collect();
        if !ids.is_empty() {
            rows.push(backbone.embed_tokens(&ids)?);
        }
        if rows.is_empty() {
            return backbone.embed_tokens(&[0])?.narrow(0, 0, 0);
        }
        Tensor::cat(&rows, 0)
    }

    fn layer(
        &self,
        depth: usize,
        layer: &Layer,
        x: &Tensor,
        silent: usize,
        computed: &mut Computed,
    ) -> Result<Tensor> {
        let rows = self.layout.positions.len();
        if rows == 0 {
            return Ok(x.clone());
        }
        let normed = layer.normed_input(x)?;
        let own = self.key_values(layer, &normed)?;
        for ((_, rows), kept) in self.layout.prefixes.iter().zip(&mut computed.prefixes) {
            kept.push(own.rows(rows.start, rows.len())?);
        }
        for (response, kept) in self.layout.responses.iter().zip(&mut computed.responses) {
            if response.kept && !response.rows.is_empty() {
                let new = own.rows(response.rows.start, response.rows.len())?;
                kept.push(response.past(depth).map_or_else(|| Ok(new.clone()), |p| p.then(&new))?);
            }
        }
        if silent == rows {
            return x.narrow(0, 0, 0);
        }
        let (x, normed) =
            (x.narrow(0, silent, rows - silent)?, normed.narrow(0, silent, rows - silent)?);
        let query = self.rotate(&layer.query.forward(&normed)?, layer.heads.query, silent)?;
        let attended = self.attend(depth, layer, &query, &own, silent, computed)?;
        layer.finish(&x, &attended)
    }

    /// Of all packed rows, in the type that they are kept in.
    fn key_values(&self, layer: &Layer, normed: &Tensor) -> Result<KeyValues> {
        let heads = layer.heads.key_value;
        let kind = match self.model.settings.kv {
            KvType::F32 => DType::F32,
            KvType::F16 => DType::F16,
        };
        let stored = |x: Tensor| x.transpose(0, 1)?.contiguous()?.to_dtype(kind);
        let value = layer.value.forward(normed)?;
        let value = value.reshape((value.dim(0)?, heads, layer.heads.dim))?;
        Ok(KeyValues {
            key: stored(self.rotate(&layer.key.forward(normed)?, heads, 0)?)?,
            value: stored(value)?,
        })
    }

    /// Rotates rows `[rows, heads · head_dim]`, the first of which is the packed row `first`:
    /// `[rows, heads, head_dim]`.
    fn rotate(&self, x: &Tensor, heads: usize, first: usize) -> Result<Tensor> {
        let rows = x.dim(0)?;
        let x = x.reshape((rows, heads, ()))?;
        let half = x.dim(D::Minus1)? / 2;
        let (cos, sin) =
            (self.angles.0.narrow(0, first, rows)?, self.angles.1.narrow(0, first, rows)?);
        let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
        let left = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let right = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        Tensor::cat(&[left, right], D::Minus1)
    }

    /// Of all packed rows from `silent` on.
    fn attend(
        &self,
        depth: usize,
        layer: &Layer,
        query: &Tensor,
        own: &KeyValues,
        silent: usize,
        computed: &Computed,
    ) -> Result<Tensor> {
        let mut parts = Vec::new();
        if silent == 0 {
            for ((_, rows), kv) in self.layout.prefixes.iter().zip(&computed.prefixes) {
                let rows = query.narrow(0, rows.start, rows.len())?;
                parts.push(self.attention(layer, kv.last(), None).run(&rows)?);
            }
        }
        for (tile, mask) in self.layout.tiles.iter().zip(&self.masks) {
            let shared = match &tile.shared {
                Shared::New(prefix) => computed.prefixes[*prefix].last().cloned(),
                Shared::Cached(prefix) => Some(prefix.layer(depth)?),
            };
            let new = own.rows(tile.rows.start, tile.rows.len())?;
            let kv = self.past(tile, depth).map_or_else(|| Ok(new.clone()), |p| p.then(&new))?;
            let rows = query.narrow(0, tile.rows.start - silent, tile.rows.len())?;
            let own = Own { kv: &kv, mask };
            parts.push(self.attention(layer, shared.as_ref(), Some(own)).run(&rows)?);
        }
        Tensor::cat(&parts, 0)
    }

    fn attention<'k>(
        &self,
        layer: &Layer,
        shared: Option<&'k KeyValues>,
        own: Option<Own<'k>>,
    ) -> Attention<'k> {
        let score_bytes = self.model.settings.score_bytes;
        Attention { heads: layer.heads, shared, own, score_bytes }
    }

    /// What was kept of a tile's response; a tile of several has none.
    fn past(&self, tile: &Tile, depth: usize) -> Option<&KeyValues> {
        self.layout.responses[tile.responses.start].past(depth)
    }

    fn finish(self, x: &Tensor, computed: Computed) -> Result<Done<DevicePrefix, DeviceSuffix>> {
        let Self { model, layout, .. } = self;
        let logits: Vec<f32> = if x.dim(0)? == 0 {
            model.device().synchronize()?;
            Vec::new()
        } else {
            model.head.forward(&model.backbone.norm.forward(x)?)?.to_vec1()?
        };
        let prefixes = computed
            .prefixes
            .iter()
            .map(|layers| DevicePrefix::new(layers).map(Arc::new))
            .collect::<Result<Vec<_>>>()?;
        let mut logits_of = vec![Vec::new(); layout.responses.len()];
        let mut suffixes: Vec<Option<DeviceSuffix>> = Vec::new();
        suffixes.resize_with(layout.responses.len(), || None);
        for (response, layers) in layout.responses.into_iter().zip(computed.responses) {
            let rows =
                response.rows.start - layout.prefix_rows..response.rows.end - layout.prefix_rows;
            let place = response.place;
            logits_of[place] = logits[rows].to_vec();
            if response.kept {
                suffixes[place] = Some(response.leave(&prefixes, layers));
            }
        }
        Ok(Done { logits: logits_of, prefixes, suffixes })
    }
}

impl Response<'_> {
    /// Its keys and values of a layer before this pass.
    fn past(&self, depth: usize) -> Option<&KeyValues> {
        self.so_far.as_ref().and_then(|so_far| so_far.layers.get(depth))
    }

    /// What it leaves behind; `layers` is empty where it had no tokens in this pass.
    fn leave(self, prefixes: &[Arc<DevicePrefix>], layers: Vec<KeyValues>) -> DeviceSuffix {
        let (before, old) =
            self.so_far.map_or((0, Vec::new()), |so_far| (so_far.rows, so_far.layers));
        DeviceSuffix {
            prefix: match self.shared {
                Shared::New(prefix) => Arc::clone(&prefixes[prefix]),
                Shared::Cached(prefix) => prefix,
            },
            rows: before + self.rows.len(),
            layers: if self.rows.is_empty() { old } else { layers },
        }
    }
}
