//! Products of few rows whose columns are shared among a team's threads.

use std::ops::Range;

use super::kernel::WIDTH;
use super::rows::{Rows, RowsMut};
use super::team::{Buffer, Scratch, Team};
use super::weights::{Linear, row_stride};

/// Weights below which one thread is faster than waking the others.
const LEAST_WEIGHTS: usize = 1 << 16;
/// Pieces for each thread: one that is held up leaves its pieces to the others.
const PIECES: usize = 2;

/// Memory of passes of few rows, beside that of the threads.
#[derive(Debug, Default)]
pub(super) struct Thin {
    pub(super) scratch: Scratch,
    /// What the threads compute, each its own columns.
    pub(super) parts: Buffer,
}

// === impl Thin ===

impl Thin {
    pub(super) fn scratch(&mut self) -> &mut Scratch {
        &mut self.scratch
    }

    pub(super) fn bytes(&self) -> u64 {
        self.scratch.bytes() + self.parts.bytes()
    }
}

/// `panels` panels in even ranges for `threads` threads.
pub(super) fn cuts(panels: usize, threads: usize) -> Vec<Range<usize>> {
    let most = panels.div_ceil(threads * PIECES).max(1);
    (0..panels).step_by(most).map(|from| from..panels.min(from + most)).collect()
}

/// `out = x · weightᵀ (+ bias)` for layers over the same rows. Each `out` has room for whole panels.
pub(super) fn spread<const N: usize>(
    team: &Team,
    parts: &mut Buffer,
    x: Rows<'_>,
    work: [(&Linear, RowsMut<'_>); N],
) {
    let weights: usize = work.iter().map(|(linear, _)| linear.weights()).sum();
    if weights < LEAST_WEIGHTS {
        for (linear, out) in work {
            linear.forward(x, out);
        }
        return;
    }
    let count = x.count();
    let size = |panels: usize| count * row_stride(panels * WIDTH);
    let ranges = work.each_ref().map(|(linear, _)| cuts(linear.panel_count(), team.threads()));
    let total = ranges.iter().flatten().map(|range| size(range.len())).sum();
    let mut rest = parts.room(total);
    let mut tasks = Vec::new();
    for (at, ranges) in ranges.into_iter().enumerate() {
        for range in ranges {
            let (own, after) = rest.split_at_mut(size(range.len()));
            rest = after;
            tasks.push((at, range, own));
        }
    }
    let linears = work.each_ref().map(|(linear, _)| *linear);
    team.run(tasks.iter_mut().collect(), |(at, range, own), _| {
        let out = RowsMut::new(own, row_stride(range.len() * WIDTH), count);
        linears[*at].columns(x, range.start, range.end, out);
    });
    let mut outs = work.map(|(_, out)| out);
    for (at, range, own) in tasks {
        let columns = range.len() * WIDTH;
        let own = Rows::new(own, row_stride(columns), count);
        for row in 0..count {
            let out = &mut outs[at].row_mut(row)[range.start * WIDTH..][..columns];
            out.copy_from_slice(&own.row(row)[..columns]);
        }
    }
}
