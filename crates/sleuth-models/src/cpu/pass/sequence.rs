use std::ops::Range;
use std::sync::Arc;

use super::decoder::Sees;
use crate::cpu::NewPrefix;
use crate::cpu::attention::{Keys, View};
use crate::cpu::kv::{ImageKv, PrefixKv, SequenceKv};
use crate::cpu::workspace::Packed;

/// Consecutive packed rows, and what they see.
pub(super) struct Sequence<'a, F> {
    pub(super) rows: Range<usize>,
    pub(super) source: Source<'a, F>,
    pub(super) shared: Option<Shared>,
    pub(super) own: SequenceKv,
    pub(super) kept: Kept,
    /// Whether a row sees no row behind it.
    pub(super) causal: bool,
    /// What layers that look at an image see.
    pub(super) image: Option<ImageKv>,
    /// The first rows, which come before the image.
    pub(super) blind: usize,
    /// Logits are wanted for this many rows at the end.
    pub(super) scored: usize,
}

/// What becomes layer 0's input.
pub(super) enum Source<'a, F> {
    /// Image rows where the model has them, then tokens.
    Prefix(NewPrefix<'a, F>),
    /// Tokens.
    Tokens(&'a [u32]),
}

#[derive(Clone)]
pub(super) enum Shared {
    /// The prefix of this sequence of the pass.
    New(usize),
    Cached(Arc<PrefixKv>),
}

/// What keys and values a sequence leaves behind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// All layers'.
    All,
    /// None: one layer's are held at a time.
    Nothing,
}

// === impl Sequence ===

impl<F> Sequence<'_, F> {
    fn slot(&self, place: usize) -> usize {
        if self.kept == Kept::All { place } else { 0 }
    }

    /// Writes the keys and values of a layer with this place.
    pub(super) fn write(&mut self, place: usize, packed: &Packed<'_>) {
        let (key, value) = packed.key_values(&self.rows);
        self.own.write(self.slot(place), key, value);
    }
}

/// What the rows of each sequence see in a layer.
pub(super) fn views<'s, F>(sequences: &'s [Sequence<'_, F>], sees: Sees) -> Vec<View<'s>> {
    let visible = sequences.iter().filter(|sequence| !sequence.rows.is_empty());
    match sees {
        Sees::Own(place) => visible.map(|s| own_view(sequences, s, place)).collect(),
        Sees::Image(place) => visible.flat_map(|s| image_views(s, place)).collect(),
    }
}

fn own_view<'s, F>(
    sequences: &'s [Sequence<'_, F>],
    sequence: &'s Sequence<'_, F>,
    layer: usize,
) -> View<'s> {
    let past = sequence.own.rows();
    View {
        rows: sequence.rows.clone(),
        shared: sequence.shared.as_ref().map(|shared| match shared {
            Shared::New(at) => {
                let prefix = &sequences[*at];
                Keys { kv: &prefix.own, layer, rows: prefix.rows.len() }
            }
            Shared::Cached(kv) => Keys { kv: &kv.own, layer, rows: kv.rows() },
        }),
        own: Keys {
            kv: &sequence.own,
            layer: sequence.slot(layer),
            rows: past + sequence.rows.len(),
        },
        past,
        causal: sequence.causal,
    }
}

/// Rows of sequences that look at one image are stacked against it, as those behind one prefix are.
fn image_views<'s, F>(sequence: &'s Sequence<'_, F>, layer: usize) -> Vec<View<'s>> {
    let Some(image) = &sequence.image else { return Vec::new() };
    let Range { start, end } = sequence.rows;
    let first = start + sequence.blind;
    let view = |rows: Range<usize>, keys: usize| View {
        rows,
        shared: Some(Keys { kv: image.kv(), layer, rows: keys }),
        own: Keys { kv: image.kv(), layer, rows: 0 },
        past: 0,
        causal: false,
    };
    let both = [view(start..first, image.blind_rows()), view(first..end, image.seen_rows())];
    let sees = |view: &View<'_>| view.shared.is_some_and(|keys| keys.rows > 0);
    both.into_iter().filter(|view| !view.rows.is_empty() && sees(view)).collect()
}

/// The packed rows that come before their image.
pub(super) fn blind<F>(sequences: &[Sequence<'_, F>]) -> Vec<Range<usize>> {
    let ranges = sequences.iter().map(|s| s.rows.start..s.rows.start + s.blind);
    ranges.filter(|rows| !rows.is_empty()).collect()
}
