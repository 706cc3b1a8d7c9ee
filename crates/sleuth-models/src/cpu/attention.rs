use std::ops::Range;

use super::element::{Seen, exponentials};
use super::kernel::{Panels, Start, WIDTH, multiply};
use super::kv::{PAGE, SequenceKv};
use super::rows::{Rows, RowsMut};
use super::team::{AttentionScratch, Buffer};
use super::weights::{padded, row_stride};

/// Most bytes of attention scores that a thread holds at a time. Half of a usual second-level
/// cache: scores are written, turned into weights and read again.
pub(super) const SCORE_BYTES: usize = 512 * 1024;

/// How rows split into heads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    pub(super) query: usize,
    pub(super) key_value: usize,
    pub(super) dim: usize,
}

/// Consecutive packed rows of one sequence, and the keys that they see in one layer: all of a
/// shared prefix, and of their own sequence all (`causal` false) or those up to themselves.
#[derive(Clone, Debug)]
pub(super) struct View<'a> {
    pub(super) rows: Range<usize>,
    pub(super) shared: Option<Keys<'a>>,
    pub(super) own: Keys<'a>,
    /// Rows of the own sequence before these.
    pub(super) past: usize,
    pub(super) causal: bool,
}

/// The first `rows` keys and values of a sequence in one layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys<'a> {
    pub(super) kv: &'a SequenceKv,
    pub(super) layer: usize,
    pub(super) rows: usize,
}

/// The part of a view that lies in a tile.
struct Part<'a> {
    /// Rows of the tile.
    rows: Range<usize>,
    own: Keys<'a>,
    /// Own keys that the first of these rows sees, and how many more each later one does.
    first: usize,
    step: usize,
}

/// Rows that are worked on at once: those of one prefix, so that their queries are stacked against
/// it, each with its own sequence's keys behind.
struct Tile<'a> {
    /// Rows of the block.
    rows: Range<usize>,
    shared: Option<Keys<'a>>,
    parts: Vec<Part<'a>>,
    /// Query heads that share a K/V head: rows of the stack for each row of the tile.
    stack: usize,
    /// First column of the own scores, and the columns that they take at most.
    start: usize,
    own: usize,
}

// === impl Heads ===

impl Heads {
    pub(super) fn stack(self) -> usize {
        self.query / self.key_value
    }

    /// Bytes of scratch that blocks of at most `rows` rows may need, each row seeing up to
    /// `shared` and `own` keys.
    pub(super) fn scratch_bytes(self, rows: usize, shared: usize, own: usize) -> u64 {
        let (stack, stride) = (self.stack(), row_stride(padded(shared) + padded(own)));
        let rows = rows.min(tile_rows(stack, stride)) * stack;
        let page = PAGE * padded(self.dim);
        [rows * row_stride(self.dim), rows * stride, rows * row_stride(self.dim), rows, page]
            .into_iter()
            .map(Buffer::bytes_for)
            .sum()
    }

    /// Attention of the packed rows `block`, whose rotated queries are `queries`
    /// `[rows, heads · dim]`, to `out` of the same shape. `views` cover the block in order.
    pub(super) fn attend(
        self,
        block: Range<usize>,
        queries: Rows<'_>,
        views: &[View<'_>],
        scratch: &mut AttentionScratch,
        mut out: RowsMut<'_>,
    ) {
        for tile in tiles(block, views, self.stack()) {
            for head in 0..self.key_value {
                self.attend_tile(&tile, head, queries, scratch, &mut out);
            }
        }
    }

    fn attend_tile(
        self,
        tile: &Tile<'_>,
        head: usize,
        queries: Rows<'_>,
        scratch: &mut AttentionScratch,
        out: &mut RowsMut<'_>,
    ) {
        let rows = tile.rows.len() * tile.stack;
        let (query_stride, score_stride) = (row_stride(self.dim), row_stride(tile.columns()));
        let AttentionScratch { queries: stacked, scores, mixed, sums, page } = scratch;
        let stacked = stacked.room(rows * query_stride);
        for (row, stacked) in stacked.chunks_exact_mut(query_stride).enumerate() {
            let (r, h) = (tile.rows.start + row / tile.stack, row % tile.stack);
            let at = (head * tile.stack + h) * self.dim;
            stacked[..self.dim].copy_from_slice(&queries.row(r)[at..at + self.dim]);
        }
        let stacked = Rows::new(stacked, query_stride, rows);
        let mut scores = RowsMut::new(scores.room(rows * score_stride), score_stride, rows);
        tile.score(head, stacked, page, &mut scores);
        let sums = sums.room(rows);
        let scale = (1.0 / (self.dim as f64).sqrt()) as f32;
        exponentials(scores.part(0, rows, 0), scale, |row| tile.seen(row), sums);
        let mut mixed = RowsMut::new(mixed.room(rows * query_stride), query_stride, rows);
        tile.mix(head, scores.as_rows(), page, &mut mixed);
        for (row, sum) in sums.iter().enumerate() {
            let (r, h) = (tile.rows.start + row / tile.stack, row % tile.stack);
            let at = (head * tile.stack + h) * self.dim;
            let inverse = 1.0 / sum;
            let out = &mut out.row_mut(r)[at..at + self.dim];
            for (out, mixed) in out.iter_mut().zip(mixed.row(row)) {
                *out = mixed * inverse;
            }
        }
    }
}

/// Rows of a tile whose stacked scores stay within [`SCORE_BYTES`].
fn tile_rows(stack: usize, stride: usize) -> usize {
    (SCORE_BYTES / (stack * stride * size_of::<f32>())).max(1)
}

/// Cuts a block into tiles: runs of rows behind one prefix, or of one sequence.
fn tiles<'a>(block: Range<usize>, views: &[View<'a>], stack: usize) -> Vec<Tile<'a>> {
    let first = views.partition_point(|view| view.rows.end <= block.start);
    let views: Vec<&View<'a>> =
        views[first..].iter().take_while(|view| view.rows.start < block.end).collect();
    let mut tiles = Vec::new();
    for run in views.chunk_by(|a, b| same_prefix(a, b)) {
        let (Some(head), Some(tail)) = (run.first(), run.last()) else { continue };
        let rows = head.rows.start.max(block.start)..tail.rows.end.min(block.end);
        let shared = head.shared.map_or(0, |keys| keys.rows);
        let own = run.iter().map(|view| view.own.rows).max().unwrap_or(0);
        let most = tile_rows(stack, row_stride(padded(shared) + padded(own)));
        let even = rows.len().div_ceil(rows.len().div_ceil(most));
        let mut from = rows.start;
        while from < rows.end {
            let to = rows.end.min(from + even);
            tiles.push(Tile::new(block.start, from..to, run, stack));
            from = to;
        }
    }
    tiles
}

fn same_prefix(a: &View<'_>, b: &View<'_>) -> bool {
    match (a.shared, b.shared) {
        (Some(a), Some(b)) => std::ptr::eq(a.kv, b.kv) && a.rows == b.rows,
        _ => false,
    }
}

// === impl Tile ===

impl<'a> Tile<'a> {
    /// The packed rows `rows` of a block that begins at `block`, covered by `views`.
    fn new(block: usize, rows: Range<usize>, views: &[&View<'a>], stack: usize) -> Self {
        let mut parts = Vec::new();
        for view in views {
            let own = rows.start.max(view.rows.start)..rows.end.min(view.rows.end);
            if own.is_empty() {
                continue;
            }
            let (first, step) = if view.causal {
                (view.past + own.start - view.rows.start + 1, 1)
            } else {
                (view.own.rows, 0)
            };
            let rows = own.start - rows.start..own.end - rows.start;
            parts.push(Part { rows, own: view.own, first, step });
        }
        let shared = views.first().and_then(|view| view.shared);
        let start = padded(shared.map_or(0, |keys| keys.rows));
        let own = parts.iter().map(Part::read).max().unwrap_or(0);
        let rows = rows.start - block..rows.end - block;
        Self { rows, shared, parts, stack, start, own: padded(own) }
    }

    fn columns(&self) -> usize {
        self.start + self.own
    }

    /// Queries times keys, all rows against the prefix and each part against its own.
    fn score(&self, head: usize, queries: Rows<'_>, page: &mut Buffer, scores: &mut RowsMut<'_>) {
        let rows = queries.count();
        if let Some(shared) = self.shared {
            shared.for_pages(shared.rows, |keys, at, len| {
                let panels = keys.kv.keys((keys.layer, head, at), len, page);
                multiply(queries, panels, scores.part(0, rows, at * PAGE), Start::Zero);
            });
        }
        for part in &self.parts {
            let (from, rows) = part.stacked(self.stack);
            part.own.for_pages(part.read(), |keys, at, len| {
                let panels = keys.kv.keys((keys.layer, head, at), len, page);
                let out = scores.part(from, rows, self.start + at * PAGE);
                multiply(queries.part(from, rows, 0), panels, out, Start::Zero);
            });
        }
    }

    /// Weights times values: one sum per output, over the prefix and then over the own keys.
    fn mix(&self, head: usize, weights: Rows<'_>, page: &mut Buffer, mixed: &mut RowsMut<'_>) {
        let rows = weights.count();
        let start = |at: usize, prefix: bool| {
            if at == 0 && !prefix { Start::Zero } else { Start::Sums }
        };
        if let Some(shared) = self.shared {
            shared.for_pages(shared.rows, |keys, at, len| {
                let panels: Panels<'_> = keys.kv.values((keys.layer, head, at), len, page);
                let weights = weights.part(0, rows, at * PAGE);
                multiply(weights, panels, mixed.part(0, rows, 0), start(at, false));
            });
        }
        for part in &self.parts {
            let (from, rows) = part.stacked(self.stack);
            part.own.for_pages(part.read(), |keys, at, len| {
                let panels = keys.kv.values((keys.layer, head, at), len, page);
                let weights = weights.part(from, rows, self.start + at * PAGE);
                let out = mixed.part(from, rows, 0);
                multiply(weights, panels, out, start(at, self.shared.is_some()));
            });
        }
    }

    /// What a row of the stack sees.
    fn seen(&self, row: usize) -> Seen {
        let row = row / self.stack;
        let shared = self.shared.map_or(0, |keys| keys.rows);
        let part = self.parts.partition_point(|part| part.rows.end <= row);
        let (own, read) = self
            .parts
            .get(part)
            .map_or((0, 0), |part| (part.first + (row - part.rows.start) * part.step, part.read()));
        Seen { shared, start: self.start, own, read }
    }
}

// === impl Part ===

impl Part<'_> {
    /// Own keys that its last row sees.
    fn read(&self) -> usize {
        self.first + (self.rows.len() - 1) * self.step
    }

    /// First row and number of rows in the stack.
    fn stacked(&self, stack: usize) -> (usize, usize) {
        (self.rows.start * stack, self.rows.len() * stack)
    }
}

// === impl Keys ===

impl Keys<'_> {
    /// Calls `each(self, page, rows of it)` for the pages of the first `rows` rows.
    fn for_pages(self, rows: usize, mut each: impl FnMut(Self, usize, usize)) {
        for page in 0..rows.div_ceil(PAGE) {
            each(self, page, PAGE.min(rows - page * PAGE));
        }
    }
}

const _: () = assert!(PAGE.is_multiple_of(WIDTH), "a page holds whole panels");
