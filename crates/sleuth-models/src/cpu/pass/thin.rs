//! Passes of few rows, as generation makes them token by token. Such a pass waits for the weights,
//! so the threads share each product's columns and every weight is read once. Each output is the
//! same chain as in any other pass, so no bit changes.

use std::slice;

use super::{Decoder, Pass, Read, blind, embed, read, views, write};
use crate::LoadError;
use crate::cpu::Done;
use crate::cpu::workspace::{BLOCK_ROWS, Workspace};

impl<D: Decoder> Pass<'_, D> {
    /// As [`Pass::run`], of the states; a small pass is shared out by columns.
    pub(in crate::cpu) fn run_states(mut self, space: &mut Workspace) -> Result<Done, LoadError> {
        if !self.is_thin(space.threads()) {
            return self.run(space, Read::State);
        }
        let width = Read::State.width(self.model);
        let values = self.run_thin(space)?;
        Ok(self.finish(&values, width))
    }

    /// Whether the rows fit one block, all are read, and there are threads to share it.
    fn is_thin(&self, threads: usize) -> bool {
        threads > 1 && self.silent == 0 && (1..=BLOCK_ROWS).contains(&self.rows)
    }

    /// The states of all rows.
    fn run_thin(&mut self, space: &mut Workspace) -> Result<Vec<f32>, LoadError> {
        let model = self.model;
        let table = model.angles(self.positions.iter().copied().max().unwrap_or(0));
        let Workspace { team, rows: buffers, thin, .. } = space;
        let mut packed = buffers.pack(model.widths(), self.rows);
        let all = 0..self.rows;
        let mut values = vec![0.0; self.rows * Read::State.width(model)];
        for block in &mut packed.blocks(slice::from_ref(&all), 1) {
            embed(model, &self.sequences, block)?;
        }
        let blind = blind(&self.sequences);
        for layer in 0..model.depth() {
            let at = (&*table, self.positions.as_slice());
            for block in &mut packed.blocks(slice::from_ref(&all), 1) {
                model.project_thin(layer, block, at, team, thin);
            }
            let sees = model.sees(layer);
            write(&mut self.sequences, sees, &packed, team);
            let views = views(&self.sequences, sees);
            for block in &mut packed.blocks(slice::from_ref(&all), 1) {
                model.finish_thin(layer, (&views, &blind), block, team, thin);
            }
        }
        for block in &packed.blocks(slice::from_ref(&all), 1) {
            read(model, Read::State, block, thin.scratch(), &mut values);
        }
        Ok(values)
    }
}
