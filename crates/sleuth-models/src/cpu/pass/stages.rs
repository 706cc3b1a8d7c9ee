use super::Project;
use super::decoder::Decoder;
use super::sequence::{Sequence, Source};
use crate::LoadError;
use crate::cpu::element;
use crate::cpu::rows::RowsMut;
use crate::cpu::team::Scratch;
use crate::cpu::weights::row_stride;
use crate::cpu::workspace::Block;
use crate::ops::RopeTable;

/// What is read of the states after the last layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cpu) enum Read {
    /// The reward head's logit: one value a row.
    Reward,
    /// The state after the final norm: `hidden` values a row.
    State,
}

// === impl Read ===

impl Read {
    /// Values for each row.
    pub(super) fn width(self, model: &impl Decoder) -> usize {
        match self {
            Self::Reward => 1,
            Self::State => model.widths().hidden,
        }
    }
}

/// Layer 0's input: image rows where the model has them, and text rows.
pub(super) fn embed<D: Decoder>(
    model: &D,
    sequences: &[Sequence<'_, D::Features>],
    block: &mut Block<'_>,
) -> Result<(), LoadError> {
    let images = model.image_rows();
    let all = block.rows.clone();
    let first = sequences.partition_point(|s| s.rows.end <= all.start);
    for sequence in sequences[first..].iter().take_while(|s| s.rows.start < all.end) {
        let start = sequence.rows.start;
        let rows = start.max(all.start)..sequence.rows.end.min(all.end);
        let (tokens, image_rows) = match &sequence.source {
            Source::Tokens(tokens) => (*tokens, start..start),
            Source::Prefix(prefix) => {
                let own = rows.start..rows.end.min(start + images).max(rows.start);
                if !own.is_empty() {
                    let out = block.x.part(own.start - all.start, own.len(), 0);
                    model.embed_image(prefix.features, own.start - start..own.end - start, out);
                }
                (prefix.prompt, start..start + images)
            }
        };
        for row in rows.start.max(image_rows.end)..rows.end {
            let id = tokens[row - image_rows.end];
            model.embedding().look_up(id, block.x.row_mut(row - all.start))?;
        }
    }
    Ok(())
}

/// Queries, keys and values of a layer; of silent rows in the last one only the latter.
pub(super) fn project(
    model: &impl Decoder,
    layer: usize,
    block: &mut Block<'_>,
    angles: (&RopeTable, &[u32]),
    silent: usize,
    scratch: &mut Scratch,
) {
    let last = layer + 1 == model.depth();
    let what = if last && block.rows.end <= silent { Project::KeyValues } else { Project::All };
    model.project(layer, block, what, angles, scratch);
}

/// The states after the final norm, or the head on them.
pub(super) fn read(
    model: &impl Decoder,
    what: Read,
    block: &Block<'_>,
    scratch: &mut Scratch,
    values: &mut [f32],
) {
    let (count, width) = (block.rows.len(), model.widths().hidden);
    let stride = row_stride(width);
    let mut normed = RowsMut::new(scratch.normed.room(count * stride), stride, count);
    model.norm().forward(block.x.as_rows(), normed.part(0, count, 0));
    match what {
        Read::Reward => {
            let (head, bias) = model.head();
            for (row, logit) in values.iter_mut().enumerate() {
                *logit = element::dot(normed.row(row), head) + bias;
            }
        }
        Read::State => {
            for (row, state) in values.chunks_exact_mut(width).enumerate() {
                state.copy_from_slice(&normed.row(row)[..width]);
            }
        }
    }
}
