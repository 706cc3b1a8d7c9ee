use super::Layer;
use crate::cpu::attention::{Heads, View};
use crate::cpu::element;
use crate::cpu::rows::RowsMut;
use crate::cpu::spread::{Thin, spread};
use crate::cpu::team::{Scratch, Team};
use crate::cpu::weights::row_stride;
use crate::cpu::workspace::Block;
use crate::ops::RopeTable;

// === impl Layer ===

impl Layer {
    /// As [`Layer::project`], the threads sharing columns.
    pub(in crate::cpu) fn project_thin(
        &self,
        block: &mut Block<'_>,
        (table, positions): (&RopeTable, &[u32]),
        team: &Team,
        thin: &mut Thin,
    ) {
        let count = block.rows.len();
        let stride = row_stride(self.out.outputs());
        let Thin { scratch: Scratch { normed, .. }, parts } = thin;
        let mut normed = RowsMut::new(normed.room(count * stride), stride, count);
        self.input_norm.forward(block.x.as_rows(), normed.part(0, count, 0));
        let work = [
            (&self.query, block.query.part(0, count, 0)),
            (&self.key, block.key.part(0, count, 0)),
            (&self.value, block.value.part(0, count, 0)),
        ];
        spread(team, parts, normed.as_rows(), work);
        let Heads { query, key_value, dim } = self.heads;
        let positions = &positions[block.rows.clone()];
        let angles = |row: usize| table.row(positions[row] as usize);
        element::rotate(block.query.part(0, count, 0), (query, dim / 2), angles);
        element::rotate(block.key.part(0, count, 0), (key_value, dim / 2), angles);
    }

    /// As [`Layer::finish`], the threads sharing columns; attention is a small part and stays with
    /// one of them.
    pub(in crate::cpu) fn finish_thin(
        &self,
        views: &[View<'_>],
        block: &mut Block<'_>,
        team: &Team,
        thin: &mut Thin,
    ) {
        let (count, hidden) = (block.rows.len(), self.out.outputs());
        let (stride, query_stride) = (row_stride(hidden), row_stride(self.query.outputs()));
        let Thin { scratch, parts } = thin;
        let Scratch { normed, attended, wide, out, attention, .. } = scratch;
        let attended = attended.room(count * query_stride);
        let mut attended = RowsMut::new(attended, query_stride, count);
        let (rows, queries) = (block.rows.clone(), block.query.as_rows());
        self.heads.attend(rows, queries, views, attention, attended.part(0, count, 0));
        let mut out = RowsMut::new(out.room(count * stride), stride, count);
        spread(team, parts, attended.as_rows(), [(&self.out, out.part(0, count, 0))]);
        element::add(block.x.part(0, count, 0), out.as_rows(), hidden);
        let mut normed = RowsMut::new(normed.room(count * stride), stride, count);
        self.post_norm.forward(block.x.as_rows(), normed.part(0, count, 0));
        self.mlp.forward_thin(normed.as_rows(), (team, parts), wide, out.part(0, count, 0));
        element::add(block.x.part(0, count, 0), out.as_rows(), hidden);
    }
}
