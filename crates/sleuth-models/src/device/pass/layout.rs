use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor};

use crate::backbone::{Behind, NewPrefix, Prefilled, Suffix, Work};
use crate::device::{DeviceFeatures, DevicePrefix, DeviceSuffix};

/// transformers counts PaliGemma's positions from 1.
const FIRST_POSITION: u32 = 1;
/// Rows of responses that share one product: the part of it that lies between different responses
/// stays small.
const TILE_ROWS: usize = 128;

/// Where each sequence's rows lie in the packed rows: all new prefixes first, then all responses,
/// those behind one prefix together.
pub(super) struct Layout<'a> {
    pub(super) prefixes: Vec<(NewPrefix<'a, DeviceFeatures>, Range<usize>)>,
    pub(super) responses: Vec<Response<'a>>,
    pub(super) tiles: Vec<Tile>,
    pub(super) prefix_rows: usize,
    /// Of every packed row.
    pub(super) positions: Vec<u32>,
}

/// A response's rows in this pass.
pub(super) struct Response<'a> {
    /// Its place in the work.
    pub(super) place: usize,
    pub(super) tokens: &'a [u32],
    pub(super) shared: Shared,
    pub(super) so_far: Option<DeviceSuffix>,
    pub(super) kept: bool,
    /// Packed rows.
    pub(super) rows: Range<usize>,
}

/// What a response stands behind.
#[derive(Clone, Debug)]
pub(super) enum Shared {
    /// The prefix with this place in the pass.
    New(usize),
    Cached(Arc<DevicePrefix>),
}

/// Consecutive responses behind one prefix, whose rows share one product. One that goes on from
/// earlier tokens is a tile of its own.
pub(super) struct Tile {
    pub(super) shared: Shared,
    pub(super) responses: Range<usize>,
    /// Packed rows; never empty.
    pub(super) rows: Range<usize>,
    /// For each row, the own keys that it sees.
    visible: Vec<Range<usize>>,
    /// Keys from before this pass.
    past: usize,
}

// === impl Layout ===

impl<'a> Layout<'a> {
    pub(super) fn new(
        work: Work<'a, DeviceFeatures, DevicePrefix, DeviceSuffix>,
        image_tokens: usize,
    ) -> Self {
        let mut layout = Self {
            prefixes: Vec::new(),
            responses: work.suffixes.into_iter().enumerate().map(Response::new).collect(),
            tiles: Vec::new(),
            prefix_rows: 0,
            positions: Vec::new(),
        };
        for prefix in work.prefixes {
            let rows = layout.add(image_tokens + prefix.prompt.len(), 0);
            layout.prefixes.push((prefix, rows));
        }
        layout.prefix_rows = layout.positions.len();
        layout.responses.sort_by_key(|response| response.shared.order());
        for at in 0..layout.responses.len() {
            let response = &layout.responses[at];
            let prefix = match &response.shared {
                Shared::New(prefix) => layout.prefixes[*prefix].1.len(),
                Shared::Cached(prefix) => prefix.rows(),
            };
            let (rows, past) = (response.tokens.len(), response.past_rows());
            layout.responses[at].rows = layout.add(rows, prefix + past);
        }
        layout.cut();
        layout
    }

    /// Rows of a sequence of which `before` rows lie elsewhere.
    fn add(&mut self, rows: usize, before: usize) -> Range<usize> {
        let start = self.positions.len();
        let first = before as u32 + FIRST_POSITION;
        self.positions.extend((0..rows as u32).map(|row| first + row));
        start..self.positions.len()
    }

    /// Puts the responses into tiles.
    fn cut(&mut self) {
        for (at, response) in self.responses.iter().enumerate() {
            if response.rows.is_empty() {
                continue;
            }
            match self.tiles.last_mut() {
                Some(tile) if tile.takes(response) => tile.add(at, response),
                _ => self.tiles.push(Tile::new(at, response)),
            }
        }
    }
}

// === impl Response ===

impl<'a> Response<'a> {
    fn new((place, suffix): (usize, Suffix<'a, DevicePrefix, DeviceSuffix>)) -> Self {
        let tokens = suffix.tokens();
        let (shared, so_far, kept) = match suffix {
            Suffix::Whole { prefix, .. } => (prefix.into(), None, false),
            Suffix::First { prefix, .. } => (prefix.into(), None, true),
            Suffix::Next { so_far, .. } => {
                (Shared::Cached(Arc::clone(&so_far.prefix)), Some(so_far), true)
            }
        };
        Self { place, tokens, shared, so_far, kept, rows: 0..0 }
    }

    fn past_rows(&self) -> usize {
        self.so_far.as_ref().map_or(0, |so_far| so_far.rows)
    }
}

// === impl Shared ===

impl Shared {
    /// Equal for the same prefix alone.
    fn order(&self) -> (usize, usize) {
        match self {
            Self::New(prefix) => (0, *prefix),
            Self::Cached(prefix) => (1, Arc::as_ptr(prefix) as usize),
        }
    }
}

impl From<Behind<'_, DevicePrefix>> for Shared {
    fn from(behind: Behind<'_, DevicePrefix>) -> Self {
        match behind {
            Behind::New(prefix) => Self::New(prefix),
            Behind::Cached(prefix) => Self::Cached(Arc::clone(prefix)),
        }
    }
}

// === impl Tile ===

impl Tile {
    fn new(at: usize, response: &Response<'_>) -> Self {
        let past = response.past_rows();
        let rows = response.rows.clone();
        Self {
            shared: response.shared.clone(),
            responses: at..at + 1,
            visible: (1..=rows.len()).map(|seen| 0..past + seen).collect(),
            rows,
            past,
        }
    }

    fn takes(&self, response: &Response<'_>) -> bool {
        self.past == 0
            && response.past_rows() == 0
            && self.shared.order() == response.shared.order()
            && self.rows.len() + response.rows.len() <= TILE_ROWS
    }

    fn add(&mut self, at: usize, response: &Response<'_>) {
        let first = self.rows.len();
        self.visible.extend((1..=response.rows.len()).map(|seen| first..first + seen));
        self.rows.end = response.rows.end;
        self.responses.end = at + 1;
    }

    /// `[rows, own keys]`: 0 where a row sees a key, else -∞.
    pub(super) fn mask(&self, device: &Device) -> Result<Tensor> {
        let keys = self.past + self.rows.len();
        let mut mask = vec![f32::NEG_INFINITY; self.rows.len() * keys];
        for (row, visible) in mask.chunks_exact_mut(keys).zip(&self.visible) {
            row[visible.clone()].fill(0.0);
        }
        Tensor::from_vec(mask, (self.rows.len(), keys), device)
    }
}
