use std::ops::Range;
use std::slice;

use super::{CrossLayer, add, seeing};
use crate::cpu::attention::View;
use crate::cpu::rows::RowsMut;
use crate::cpu::spread::{Thin, spread};
use crate::cpu::team::{Scratch, Team};
use crate::cpu::weights::row_stride;
use crate::cpu::workspace::Block;

// === impl CrossLayer ===

impl CrossLayer {
    /// As [`CrossLayer::project`], the threads sharing columns.
    pub(in crate::cpu::mllama) fn project_thin(
        &self,
        block: &mut Block<'_>,
        team: &Team,
        thin: &mut Thin,
    ) {
        let count = block.rows.len();
        let stride = row_stride(self.out.outputs());
        let Thin { scratch: Scratch { normed, .. }, parts } = thin;
        let mut normed = RowsMut::new(normed.room(count * stride), stride, count);
        self.input_norm.forward(block.x.as_rows(), normed.part(0, count, 0));
        spread(team, parts, normed.as_rows(), [(&self.query, block.query.part(0, count, 0))]);
        self.query_norm.heads(block.query.part(0, count, 0), self.heads.query);
    }

    /// As [`CrossLayer::finish`], the threads sharing columns; attention stays with one of them.
    pub(in crate::cpu::mllama) fn finish_thin(
        &self,
        (views, blind): (&[View<'_>], &[Range<usize>]),
        blind_attend: bool,
        block: &mut Block<'_>,
        team: &Team,
        thin: &mut Thin,
    ) {
        let (count, hidden) = (block.rows.len(), self.out.outputs());
        let (stride, query_stride) = (row_stride(hidden), row_stride(self.query.outputs()));
        let Thin { scratch, parts } = thin;
        let Scratch { normed, attended, wide, out, attention, .. } = scratch;
        let attended = attended.room(count * query_stride);
        // Rows without a view are not written.
        attended.fill(0.0);
        let mut attended = RowsMut::new(attended, query_stride, count);
        let (rows, queries) = (block.rows.clone(), block.query.as_rows());
        self.heads.attend(rows, queries, views, attention, attended.part(0, count, 0));
        let mut out = RowsMut::new(out.room(count * stride), stride, count);
        spread(team, parts, attended.as_rows(), [(&self.out, out.part(0, count, 0))]);
        let all = 0..count;
        let seeing = seeing(&block.rows, blind);
        let attending = if blind_attend { slice::from_ref(&all) } else { seeing.as_slice() };
        let (attention_gate, mlp_gate) = self.gates;
        add(block, attending, &out, attention_gate, hidden);
        let mut normed = RowsMut::new(normed.room(count * stride), stride, count);
        self.post_norm.forward(block.x.as_rows(), normed.part(0, count, 0));
        self.mlp.forward_thin(normed.as_rows(), (team, parts), wide, out.part(0, count, 0));
        add(block, &seeing, &out, mlp_gate, hidden);
    }
}
