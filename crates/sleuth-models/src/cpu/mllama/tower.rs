use std::ops::Range;

use sleuth_core::Pixels;

use crate::LoadError;
use crate::checkpoint::Checkpoint;
use crate::cpu::attention::{Heads, Keys, View};
use crate::cpu::encoder::{self, EncoderLayer, EncoderShape};
use crate::cpu::kv::{KvLayout, KvType, SequenceKv};
use crate::cpu::norm::LayerNorm;
use crate::cpu::rows::{Rows, RowsMut};
use crate::cpu::team::Scratch;
use crate::cpu::vision::gather;
use crate::cpu::weights::{Linear, Module, row_stride};
use crate::cpu::workspace::{Block, Packed, Widths, Workspace};
use crate::mllama::VisionConfig;

/// Mllama's vision tower, packed for the CPU.
///
/// It always works on as many tiles as an image may have, and on padding up to a multiple of eight
/// rows for each: patches attend to absent tiles and to padding too, as in the reference, and only
/// those attend to patches alone.
#[derive(Debug)]
pub(super) struct Tower {
    config: VisionConfig,
    patch: Linear,
    /// `[hidden]`.
    class: Vec<f32>,
    /// `[tokens, hidden]`, times one less the gate.
    positions: Vec<f32>,
    /// `[canvases + 1, tiles, tokens, hidden]`, times the gate.
    tile_positions: Vec<f32>,
    /// `[canvases + 1, tiles, hidden]`, times their gates.
    before: Vec<f32>,
    behind: Vec<f32>,
    norm_before: LayerNorm,
    norm_behind: LayerNorm,
    local: Vec<EncoderLayer>,
    global: Vec<EncoderLayer>,
}

/// How an image lies in tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    /// Counted from 1.
    id: usize,
    columns: usize,
    /// Tiles that hold a part of the image.
    pub(super) real: usize,
}

/// Where a row of the tower stands.
struct Place {
    tile: usize,
    /// From the tile's class on; padding is behind its patches.
    token: usize,
}

/// Of the two norms around the local layers: torch's default.
const NORM_EPS: f64 = 1e-5;

// === impl Tiles ===

impl Tiles {
    /// `None` where the pixels are no canvas of the model's.
    pub(super) fn of(config: &VisionConfig, pixels: &Pixels) -> Option<Self> {
        let side = config.image_size;
        let (height, width) = (pixels.height() as usize, pixels.width() as usize);
        if !height.is_multiple_of(side) || !width.is_multiple_of(side) {
            return None;
        }
        let (rows, columns) = (height / side, width / side);
        let at = config.canvases().iter().position(|canvas| *canvas == [rows, columns])?;
        Some(Self { id: at + 1, columns, real: rows * columns })
    }
}

// === impl Tower ===

impl Tower {
    pub(super) fn load(config: &VisionConfig, checkpoint: &Checkpoint) -> Result<Self, LoadError> {
        let module = Module::new(checkpoint, "vision_model");
        let (hidden, side) = (config.hidden_size, config.patch_size);
        let (ids, tiles, tokens) =
            (config.canvases().len() + 1, config.max_num_tiles, config.tile_tokens());
        let gate = |name: &str| module.values(&format!("{name}.gate"), 1).map(|g| g[0].tanh());
        let times = |mut values: Vec<f32>, factor: f32| {
            for x in &mut values {
                *x *= factor;
            }
            values
        };
        let per_tile = |name: &str| {
            let table =
                module.values(&format!("{name}.embedding.weight"), (ids, tiles * hidden))?;
            Ok::<_, LoadError>(times(table, gate(name)?))
        };
        let position = "gated_positional_embedding";
        let position_gate = gate(position)?;
        let kernel = module.values("patch_embedding.weight", (hidden, 3, side, side))?;
        Ok(Self {
            patch: Linear::pack(&kernel, 3 * side * side, hidden, None)?,
            class: module.values("class_embedding", hidden)?,
            positions: times(
                module.values(&format!("{position}.embedding"), (tokens, hidden))?,
                1.0 - position_gate,
            ),
            tile_positions: times(
                module.values(
                    &format!("{position}.tile_embedding.weight"),
                    (ids, tiles * tokens * hidden),
                )?,
                position_gate,
            ),
            before: per_tile("pre_tile_positional_embedding")?,
            behind: per_tile("post_tile_positional_embedding")?,
            norm_before: LayerNorm::load(&module, "layernorm_pre", hidden, NORM_EPS)?,
            norm_behind: LayerNorm::load(&module, "layernorm_post", hidden, NORM_EPS)?,
            local: layers(config, checkpoint, "transformer", config.num_hidden_layers)?,
            global: layers(config, checkpoint, "global_transformer", config.num_global_layers)?,
            config: config.clone(),
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        let tables = [&self.positions, &self.tile_positions, &self.before, &self.behind];
        let tables: usize = tables.into_iter().map(|t| size_of_val(t.as_slice())).sum();
        let layers = self.local.iter().chain(&self.global).map(EncoderLayer::bytes);
        self.patch.bytes() + tables as u64 + layers.sum::<u64>()
    }

    /// An image's states, absent tiles' among them: `[tiles · tokens, output]`, tile by tile.
    pub(super) fn see(&self, space: &mut Workspace, pixels: &Pixels, tiles: Tiles) -> Vec<f32> {
        let config = &self.config;
        let rows = config.max_num_tiles * config.tile_rows();
        let Workspace { team, rows: buffers, .. } = space;
        let widths = widths(config);
        let mut packed = buffers.pack(widths, rows);
        let every = 0..rows;
        let all = std::slice::from_ref(&every);
        let mut out = vec![0.0; config.image_tokens() * config.vision_output_dim];
        let mut kv = SequenceKv::new(layout(config));
        team.run(packed.blocks(all, team.threads()), |mut block, scratch| {
            self.embed(pixels, tiles, &mut block, scratch);
            self.project(0, &mut block, scratch);
        });
        let depth = self.local.len() + self.global.len();
        for layer in 0..depth {
            if layer < self.local.len() {
                self.keep(layer, tiles, &packed, &mut out);
            }
            let (key, value) = packed.key_values(&every);
            kv.write(0, key, value);
            let views = self.views(&kv, tiles);
            team.run(packed.blocks(all, team.threads()), |mut block, scratch| {
                self.layer(layer).finish(&views, &mut block, scratch);
                // Behind the last local layer the norm comes first.
                if layer + 1 < self.local.len() {
                    self.project(layer + 1, &mut block, scratch);
                }
            });
            if layer + 1 < self.local.len() {
                continue;
            }
            if layer + 1 == self.local.len() {
                self.keep(layer + 1, tiles, &packed, &mut out);
            }
            team.run(packed.blocks(all, team.threads()), |mut block, scratch| {
                if layer + 1 == self.local.len() {
                    self.turn(tiles, &mut block, scratch);
                }
                if layer + 1 < depth {
                    self.project(layer + 1, &mut block, scratch);
                }
            });
        }
        self.put(0..config.hidden_size, 1, tiles, &packed, &mut out);
        out
    }

    fn layer(&self, at: usize) -> &EncoderLayer {
        let local = self.local.len();
        if at < local { &self.local[at] } else { &self.global[at - local] }
    }

    fn project(&self, layer: usize, block: &mut Block<'_>, scratch: &mut Scratch) {
        self.layer(layer).project(block, scratch);
    }

    /// Keeps the inputs of a local layer, or the last one's output, where they are part of the
    /// tower's. The states kept are
    /// interleaved, element by element, behind the final one.
    fn keep(&self, layer: usize, tiles: Tiles, packed: &Packed<'_>, out: &mut [f32]) {
        let (wanted, hidden) = (&self.config.intermediate_layers_indices, self.config.hidden_size);
        for (place, _) in wanted.iter().enumerate().filter(|(_, at)| **at == layer) {
            let columns = hidden + place..self.config.vision_output_dim;
            self.put(columns, wanted.len(), tiles, packed, out);
        }
    }

    /// Writes the rows' states to every `step`th of `columns`.
    fn put(
        &self,
        columns: Range<usize>,
        step: usize,
        tiles: Tiles,
        packed: &Packed<'_>,
        out: &mut [f32],
    ) {
        let (tokens, width) = (self.config.tile_tokens(), self.config.vision_output_dim);
        for row in 0..self.config.max_num_tiles * self.config.tile_rows() {
            let Place { tile, token } = self.place(row, tiles);
            if token >= tokens {
                continue;
            }
            let out = &mut out[(tile * tokens + token) * width..][columns.clone()];
            for (out, x) in out.iter_mut().step_by(step).zip(packed.state(row)) {
                *out = *x;
            }
        }
    }

    /// Rows in order: patches of the image, then what patches see but is none.
    fn place(&self, row: usize, tiles: Tiles) -> Place {
        let (tokens, rows) = (self.config.tile_tokens(), self.config.tile_rows());
        let padding = rows - tokens;
        let (patches, padded) = (tiles.real * tokens, tiles.real * rows);
        if row < patches {
            Place { tile: row / tokens, token: row % tokens }
        } else if row < padded {
            let at = row - patches;
            Place { tile: at / padding, token: tokens + at % padding }
        } else {
            Place { tile: row / rows, token: row % rows }
        }
    }

    /// Patches see everything, all else sees patches.
    fn views<'a>(&self, kv: &'a SequenceKv, tiles: Tiles) -> [View<'a>; 2] {
        let rows = self.config.max_num_tiles * self.config.tile_rows();
        let patches = tiles.real * self.config.tile_tokens();
        [(0..patches, rows), (patches..rows, patches)].map(|(own, keys)| View {
            rows: own,
            shared: None,
            own: Keys { kv, layer: 0, rows: keys },
            past: 0,
            causal: false,
        })
    }

    /// The convolution's stride equals its kernel, so it is one product over flattened patches;
    /// then classes, positions and the first norm. Padding is zero.
    fn embed(&self, pixels: &Pixels, tiles: Tiles, block: &mut Block<'_>, scratch: &mut Scratch) {
        let config = &self.config;
        let (side, n, hidden) = (config.patch_size, config.patches_per_side(), config.hidden_size);
        let (inputs, count) = (3 * side * side, block.rows.len());
        let stride = row_stride(inputs);
        let patches = scratch.wide.room(count * stride);
        for (row, patch) in block.rows.clone().zip(patches.chunks_exact_mut(stride)) {
            let Place { tile, token } = self.place(row, tiles);
            if tile < tiles.real && (1..=n * n).contains(&token) {
                let (top, left) = ((token - 1) / n * side, (token - 1) % n * side);
                let corner = (tile / tiles.columns, tile % tiles.columns);
                let at = (corner.0 * config.image_size + top, corner.1 * config.image_size + left);
                gather(pixels, side, at, &mut patch[..inputs]);
            } else {
                patch[..inputs].fill(0.0);
            }
        }
        self.patch.forward(Rows::new(patches, stride, count), block.x.part(0, count, 0));
        for (row, at) in block.rows.clone().enumerate() {
            let place = self.place(at, tiles);
            self.add_positions(&place, tiles, &mut block.x.row_mut(row)[..hidden]);
        }
        norm(&self.norm_before, hidden, block, scratch);
        for (row, at) in block.rows.clone().enumerate() {
            if self.place(at, tiles).token >= config.tile_tokens() {
                block.x.row_mut(row)[..hidden].fill(0.0);
            }
        }
    }

    fn add_positions(&self, place: &Place, tiles: Tiles, x: &mut [f32]) {
        let (hidden, tokens) = (x.len(), self.config.tile_tokens());
        let &Place { tile, token } = place;
        if token >= tokens {
            return;
        }
        let tile = tiles.id * self.config.max_num_tiles + tile;
        if token == 0 {
            x.copy_from_slice(&self.class);
        } else {
            add(x, &self.before[tile * hidden..][..hidden]);
        }
        add(x, &self.positions[token * hidden..][..hidden]);
        add(x, &self.tile_positions[(tile * tokens + token) * hidden..][..hidden]);
    }

    /// From the local layers to the global ones: the second norm, and the tiles' embedding once
    /// more, to padding too.
    fn turn(&self, tiles: Tiles, block: &mut Block<'_>, scratch: &mut Scratch) {
        let hidden = self.config.hidden_size;
        norm(&self.norm_behind, hidden, block, scratch);
        for (row, at) in block.rows.clone().enumerate() {
            let tile = tiles.id * self.config.max_num_tiles + self.place(at, tiles).tile;
            add(&mut block.x.row_mut(row)[..hidden], &self.behind[tile * hidden..][..hidden]);
        }
    }
}

fn layers(
    config: &VisionConfig,
    checkpoint: &Checkpoint,
    name: &str,
    depth: usize,
) -> Result<Vec<EncoderLayer>, LoadError> {
    let shape = EncoderShape {
        hidden: config.hidden_size,
        wide: config.intermediate_size,
        heads: heads(config),
        eps: config.norm_eps,
        activation: config.hidden_act,
        names: &encoder::MLLAMA,
        gated: name.starts_with("global"),
    };
    let load = |at: usize| {
        let path = format!("vision_model.{name}.layers.{at}");
        EncoderLayer::load(&shape, &Module::new(checkpoint, &path))
    };
    (0..depth).map(load).collect()
}

pub(super) fn heads(config: &VisionConfig) -> Heads {
    Heads { query: config.heads(), key_value: config.heads(), dim: config.head_dim() }
}

pub(super) fn widths(config: &VisionConfig) -> Widths {
    let hidden = config.hidden_size;
    Widths { hidden, query: hidden, key_value: hidden }
}

/// One layer's keys and values, of all rows.
pub(super) fn layout(config: &VisionConfig) -> KvLayout {
    let heads = heads(config);
    KvLayout { layers: 1, heads: heads.key_value, dim: heads.dim, kind: KvType::F32 }
}

fn norm(norm: &LayerNorm, hidden: usize, block: &mut Block<'_>, scratch: &mut Scratch) {
    let (count, stride) = (block.rows.len(), row_stride(hidden));
    let mut normed = RowsMut::new(scratch.normed.room(count * stride), stride, count);
    norm.forward(block.x.as_rows(), normed.part(0, count, 0));
    for row in 0..count {
        block.x.row_mut(row)[..hidden].copy_from_slice(&normed.row(row)[..hidden]);
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
