//! Passes of few rows, as generation makes them token by token. Such a pass waits for the weights,
//! so the threads share each product's columns and every weight is read once. Each output is the
//! same chain as in any other pass, so no bit changes.

use std::slice;

use super::{Pass, Read, embed, read};
use crate::LoadError;
use crate::cpu::workspace::{BLOCK_ROWS, Workspace};

impl Pass<'_> {
    /// Whether the rows fit one block, all are read, and there are threads to share it.
    pub(super) fn is_thin(&self, threads: usize) -> bool {
        threads > 1 && self.silent == 0 && (1..=BLOCK_ROWS).contains(&self.rows)
    }

    /// The states of all rows.
    pub(super) fn run_thin(&mut self, space: &mut Workspace) -> Result<Vec<f32>, LoadError> {
        let model = self.model;
        let table = model.angles(self.positions.iter().copied().max().unwrap_or(0));
        let Workspace { team, rows: buffers, thin, .. } = space;
        let mut packed = buffers.pack(model.widths(), self.rows);
        let all = 0..self.rows;
        let mut values = vec![0.0; self.rows * Read::State.width(model)];
        for block in &mut packed.blocks(slice::from_ref(&all), 1) {
            embed(model, &self.sequences, block)?;
        }
        for (depth, layer) in model.layers.iter().enumerate() {
            let at = (&*table, self.positions.as_slice());
            for block in &mut packed.blocks(slice::from_ref(&all), 1) {
                layer.project_thin(block, at, team, thin);
            }
            for sequence in &mut self.sequences {
                sequence.write(depth, &packed);
            }
            let views = super::views(&self.sequences, depth);
            for block in &mut packed.blocks(slice::from_ref(&all), 1) {
                layer.finish_thin(&views, block, team, thin);
            }
        }
        for block in &packed.blocks(slice::from_ref(&all), 1) {
            read(model, Read::State, block, thin.scratch(), &mut values);
        }
        Ok(values)
    }
}
