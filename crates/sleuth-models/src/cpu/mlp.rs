use std::ops::Range;

use super::element;
use super::kernel::WIDTH;
use super::rows::{Rows, RowsMut};
use super::spread::{cuts, spread};
use super::team::{Buffer, Scratch, Team};
use super::weights::{Linear, Module, row_stride};
use crate::{Activation, LoadError};

/// Columns of the MLP that are worked out at a time, so that gate and up stay in the first-level
/// cache until they are multiplied.
pub(super) const GATE_PANELS: usize = 8;

/// `down(act(gate(x)) · up(x))`, packed for the CPU.
#[derive(Debug)]
pub(super) struct GatedMlp {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
}

/// Buffers that it needs.
pub(super) struct MlpScratch<'a> {
    pub(super) wide: &'a mut Buffer,
    pub(super) gate: &'a mut Buffer,
    pub(super) up: &'a mut Buffer,
}

// === impl GatedMlp ===

impl GatedMlp {
    pub(super) fn load(
        module: &Module<'_>,
        (hidden, wide): (usize, usize),
        activation: Activation,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            gate: module.linear("mlp.gate_proj", hidden, wide, false)?,
            up: module.linear("mlp.up_proj", hidden, wide, false)?,
            down: module.linear("mlp.down_proj", wide, hidden, false)?,
            activation,
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        [&self.gate, &self.up, &self.down].into_iter().map(Linear::bytes).sum()
    }

    pub(super) fn forward(&self, x: Rows<'_>, scratch: MlpScratch<'_>, out: RowsMut<'_>) {
        let MlpScratch { wide, gate, up } = scratch;
        let (count, stride) = (x.count(), row_stride(self.up.outputs()));
        let mut wide = RowsMut::new(wide.room(count * stride), stride, count);
        self.gated(x, 0..self.up.panel_count(), (gate, up), &mut wide);
        self.down.forward(wide.as_rows(), out);
    }

    /// As [`Self::forward`], each thread with columns of its own.
    pub(super) fn forward_thin(
        &self,
        x: Rows<'_>,
        (team, parts): (&Team, &mut Buffer),
        wide: &mut Buffer,
        out: RowsMut<'_>,
    ) {
        let (count, stride) = (x.count(), row_stride(self.up.outputs()));
        let mut wide = RowsMut::new(wide.room(count * stride), stride, count);
        self.gated_thin(x, team, parts, &mut wide);
        spread(team, parts, wide.as_rows(), [(&self.down, out)]);
    }

    /// `act(x · gate) · (x · up)` of some panels, a few columns at a time.
    fn gated(
        &self,
        x: Rows<'_>,
        panels: Range<usize>,
        (gate, up): (&mut Buffer, &mut Buffer),
        wide: &mut RowsMut<'_>,
    ) {
        let count = x.count();
        let stride = GATE_PANELS * WIDTH;
        let gate = gate.room(count * stride);
        let up = up.room(count * stride);
        for from in panels.clone().step_by(GATE_PANELS) {
            let to = panels.end.min(from + GATE_PANELS);
            self.gate.columns(x, from, to, RowsMut::new(gate, stride, count));
            self.up.columns(x, from, to, RowsMut::new(up, stride, count));
            let (gate, up) = (Rows::new(gate, stride, count), Rows::new(up, stride, count));
            let columns = (to - from) * WIDTH;
            let at = (from - panels.start) * WIDTH;
            element::gated(self.activation, gate, up, columns, wide.part(0, count, at));
        }
    }

    fn gated_thin(&self, x: Rows<'_>, team: &Team, parts: &mut Buffer, wide: &mut RowsMut<'_>) {
        let count = x.count();
        let ranges = cuts(self.up.panel_count(), team.threads());
        let size = |panels: usize| count * row_stride(panels * WIDTH);
        let mut rest = parts.room(ranges.iter().map(|range| size(range.len())).sum());
        let mut tasks = Vec::new();
        for range in ranges {
            let (own, after) = rest.split_at_mut(size(range.len()));
            rest = after;
            tasks.push((range, own));
        }
        team.run(tasks.iter_mut().collect(), |(range, own), scratch| {
            let Scratch { gate, up, .. } = scratch;
            let mut own = RowsMut::new(own, row_stride(range.len() * WIDTH), count);
            self.gated(x, range.clone(), (gate, up), &mut own);
        });
        for (range, own) in tasks {
            let columns = range.len() * WIDTH;
            let own = Rows::new(own, row_stride(columns), count);
            for row in 0..count {
                let out = &mut wide.row_mut(row)[range.start * WIDTH..][..columns];
                out.copy_from_slice(&own.row(row)[..columns]);
            }
        }
    }
}
