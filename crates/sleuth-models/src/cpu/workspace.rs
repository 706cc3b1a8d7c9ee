use std::io;
use std::ops::Range;

use super::PassTimes;
use super::rows::{Rows, RowsMut};
use super::spread::Thin;
use super::team::{Buffer, Team};
use super::weights::row_stride;
use crate::paligemma::TextConfig;

/// Rows that a thread takes through a layer at a time: enough to read each weight seldom, few
/// enough that their activations stay in the second-level cache.
pub(super) const BLOCK_ROWS: usize = 48;

/// Rows for which a thread of its own is worth while: below, a pass waits for weights, not for
/// arithmetic.
const LEAST_ROWS: usize = 12;

/// One worker's threads and memory. A pass needs one, and any will do: it holds nothing of a model
/// or of earlier work.
#[derive(Debug)]
pub struct Workspace {
    pub(super) team: Team,
    pub(super) rows: RowBuffers,
    pub(super) times: PassTimes,
    /// Of passes of few rows.
    pub(super) thin: Thin,
}

/// What is kept for every packed row between the stages of a pass.
#[derive(Debug, Default)]
pub(super) struct RowBuffers {
    x: Buffer,
    query: Buffer,
    key: Buffer,
    value: Buffer,
}

/// Widths of a packed row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Widths {
    pub(super) hidden: usize,
    pub(super) query: usize,
    pub(super) key_value: usize,
}

/// The packed rows of a pass.
#[derive(Debug)]
pub(super) struct Packed<'a> {
    widths: Widths,
    x: &'a mut [f32],
    query: &'a mut [f32],
    key: &'a mut [f32],
    value: &'a mut [f32],
}

/// Some of the packed rows, in one thread's hands.
#[derive(Debug)]
pub(super) struct Block<'a> {
    pub(super) rows: Range<usize>,
    pub(super) x: RowsMut<'a>,
    pub(super) query: RowsMut<'a>,
    pub(super) key: RowsMut<'a>,
    pub(super) value: RowsMut<'a>,
}

// === impl Workspace ===

impl Workspace {
    /// A workspace of `threads` threads, at least one.
    pub fn new(threads: usize) -> io::Result<Self> {
        Ok(Self {
            team: Team::new(threads)?,
            rows: RowBuffers::default(),
            times: PassTimes::default(),
            thin: Thin::default(),
        })
    }

    /// How many threads work.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// Where the time of the passes since the last call went.
    pub fn take_times(&mut self) -> PassTimes {
        std::mem::take(&mut self.times)
    }

    /// Bytes held for later passes.
    pub fn bytes(&self) -> u64 {
        let RowBuffers { x, query, key, value } = &self.rows;
        let rows: u64 = [x, query, key, value].into_iter().map(Buffer::bytes).sum();
        rows + self.team.scratch_bytes() + self.thin.bytes()
    }
}

// === impl RowBuffers ===

impl RowBuffers {
    pub(super) fn pack(&mut self, widths: Widths, rows: usize) -> Packed<'_> {
        Packed {
            widths,
            x: self.x.room(rows * row_stride(widths.hidden)),
            query: self.query.room(rows * row_stride(widths.query)),
            key: self.key.room(rows * row_stride(widths.key_value)),
            value: self.value.room(rows * row_stride(widths.key_value)),
        }
    }
}

// === impl Widths ===

impl Widths {
    /// Of a decoder.
    pub(super) fn of(text: &TextConfig) -> Self {
        Self {
            hidden: text.hidden_size,
            query: text.num_attention_heads * text.head_dim,
            key_value: text.num_key_value_heads * text.head_dim,
        }
    }

    /// Bytes of buffers for `rows` rows.
    pub(super) fn bytes(self, rows: usize) -> u64 {
        [self.hidden, self.query, self.key_value, self.key_value]
            .into_iter()
            .map(|width| Buffer::bytes_for(rows * row_stride(width)))
            .sum()
    }
}

// === impl Packed ===

impl Packed<'_> {
    /// The states of the rows `rows`, end to end.
    pub(super) fn states(&self, rows: Range<usize>) -> Vec<f32> {
        let width = self.widths.hidden;
        rows.flat_map(|row| &self.x[row * row_stride(width)..][..width]).copied().collect()
    }

    /// The state of one row.
    pub(super) fn state(&self, row: usize) -> &[f32] {
        let width = self.widths.hidden;
        &self.x[row * row_stride(width)..][..width]
    }

    /// Keys and values of the rows `rows`.
    pub(super) fn key_values(&self, rows: &Range<usize>) -> (Rows<'_>, Rows<'_>) {
        let stride = row_stride(self.widths.key_value);
        let part = |values| Rows::new(values, stride, 0).part(rows.start, rows.len(), 0);
        (part(&*self.key), part(&*self.value))
    }

    /// All rows of `ranges`, which are in order and apart, in blocks.
    pub(super) fn blocks(&mut self, ranges: &[Range<usize>], threads: usize) -> Vec<Block<'_>> {
        let Widths { hidden, query, key_value } = self.widths;
        let mut rest = Rest {
            at: 0,
            x: Uncut::new(self.x, hidden),
            query: Uncut::new(self.query, query),
            key: Uncut::new(self.key, key_value),
            value: Uncut::new(self.value, key_value),
        };
        let total: usize = ranges.iter().map(ExactSizeIterator::len).sum();
        // A small pass gives every thread a part, unless reading the weights once more costs more
        // than the rows.
        let most = total.div_ceil(threads).clamp(LEAST_ROWS, BLOCK_ROWS);
        let mut blocks = Vec::new();
        for range in ranges {
            let mut from = range.start;
            while from < range.end {
                let to = range.end.min(from + most);
                blocks.push(rest.take(from..to));
                from = to;
            }
        }
        blocks
    }
}

/// Packed rows that no block has yet.
struct Rest<'a> {
    at: usize,
    x: Uncut<'a>,
    query: Uncut<'a>,
    key: Uncut<'a>,
    value: Uncut<'a>,
}

/// Rows of one buffer that no block has yet.
struct Uncut<'a> {
    values: &'a mut [f32],
    stride: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, rows: Range<usize>) -> Block<'a> {
        let skip = rows.start - self.at;
        self.at = rows.end;
        let len = rows.len();
        Block {
            rows,
            x: self.x.cut(skip, len),
            query: self.query.cut(skip, len),
            key: self.key.cut(skip, len),
            value: self.value.cut(skip, len),
        }
    }
}

impl<'a> Uncut<'a> {
    fn new(values: &'a mut [f32], width: usize) -> Self {
        Self { values, stride: row_stride(width) }
    }

    /// The `len` rows behind the next `skip`.
    fn cut(&mut self, skip: usize, len: usize) -> RowsMut<'a> {
        let (_, rest) = std::mem::take(&mut self.values).split_at_mut(skip * self.stride);
        let (own, rest) = rest.split_at_mut(len * self.stride);
        self.values = rest;
        RowsMut::new(own, self.stride, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_the_ranges_and_leave_out_what_lies_between() {
        let mut buffers = RowBuffers::default();
        let widths = Widths { hidden: 3, query: 2, key_value: 1 };
        let mut packed = buffers.pack(widths, 300);
        let blocks = packed.blocks(&[10..130, 200..260], 2);
        let rows: Vec<usize> = blocks.iter().flat_map(|b| b.rows.clone()).collect();
        assert_eq!(rows, (10..130).chain(200..260).collect::<Vec<_>>());
        for mut block in blocks {
            assert!(block.rows.len() <= BLOCK_ROWS && block.x.count() == block.rows.len());
            for row in 0..block.rows.len() {
                block.key.row_mut(row)[0] = (block.rows.start + row) as f32;
            }
        }
        let (key, _) = packed.key_values(&(200..202));
        assert_eq!((key.row(0)[0], key.row(1)[0], key.count()), (200.0, 201.0, 2));
    }

    #[test]
    fn a_small_pass_is_spread_over_the_threads_but_not_too_thin() {
        let mut buffers = RowBuffers::default();
        let mut packed = buffers.pack(Widths { hidden: 1, query: 1, key_value: 1 }, 60);
        let mut sizes = |rows: usize| {
            let all = 0..rows;
            let blocks = packed.blocks(std::slice::from_ref(&all), 4);
            blocks.iter().map(|b| b.rows.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(60), [15, 15, 15, 15]);
        assert_eq!(sizes(9), [9]);
    }
}
