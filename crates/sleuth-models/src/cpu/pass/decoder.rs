use std::ops::Range;
use std::sync::Arc;

use super::Project;
use crate::cpu::attention::View;
use crate::cpu::embedding::Embedding;
use crate::cpu::kv::{ImageKv, KvLayout};
use crate::cpu::norm::RmsNorm;
use crate::cpu::rows::RowsMut;
use crate::cpu::spread::Thin;
use crate::cpu::team::{Scratch, Team};
use crate::cpu::workspace::{Block, Widths};
use crate::ops::RopeTable;

/// A model whose decoder a [`Pass`](super::Pass) runs.
pub(in crate::cpu) trait Decoder: Sync {
    /// What a prefix takes of an image.
    type Features: Sync;
    /// Position of a sequence's first row.
    const FIRST_POSITION: u32;
    /// Whether a prefix's rows see only those before them.
    const CAUSAL_PREFIX: bool;

    fn widths(&self) -> Widths;
    /// Of keys and values that are kept: those of layers of the first kind.
    fn layout(&self) -> KvLayout;
    /// Angles of the positions `0..=last` at least.
    fn angles(&self, last: u32) -> Arc<RopeTable>;
    /// Layers.
    fn depth(&self) -> usize;
    /// What the layer's rows attend to.
    fn sees(&self, layer: usize) -> Sees;
    fn embedding(&self) -> &Embedding;
    /// The final norm.
    fn norm(&self) -> &RmsNorm;
    /// Weight and bias.
    fn head(&self) -> (&[f32], f32);

    /// Rows of a prefix before its tokens.
    fn image_rows(&self) -> usize;
    /// Writes some of an image's rows as layer 0 takes them.
    fn embed_image(&self, features: &Self::Features, rows: Range<usize>, out: RowsMut<'_>);
    /// What layers of the second kind see, and how many of the prompt's tokens come before it.
    fn image(&self, features: &Self::Features, prompt: &[u32]) -> Option<(ImageKv, usize)>;

    /// Queries, keys and values of a block's rows, as far as the layer has them.
    fn project(
        &self,
        layer: usize,
        block: &mut Block<'_>,
        what: Project,
        angles: (&RopeTable, &[u32]),
        scratch: &mut Scratch,
    );
    /// The rest of the layer. Of the rows `blind`, which are in order, no image is to be seen.
    fn finish(
        &self,
        layer: usize,
        seen: (&[View<'_>], &[Range<usize>]),
        block: &mut Block<'_>,
        scratch: &mut Scratch,
    );
    /// As [`Self::project`] of all that the layer has, in a block of few rows: the threads share
    /// columns.
    fn project_thin(
        &self,
        layer: usize,
        block: &mut Block<'_>,
        angles: (&RopeTable, &[u32]),
        team: &Team,
        thin: &mut Thin,
    );
    /// As [`Self::finish`], of few rows.
    fn finish_thin(
        &self,
        layer: usize,
        seen: (&[View<'_>], &[Range<usize>]),
        block: &mut Block<'_>,
        team: &Team,
        thin: &mut Thin,
    );
}

/// What the rows of a layer attend to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cpu) enum Sees {
    /// Their own sequence and its prefix; the layer's keys and values have this place.
    Own(usize),
    /// The image; its keys and values for this layer have this place.
    Image(usize),
}
