use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::attention::{Keys, View};
use super::decoder::Project;
use super::element;
use super::kv::{KvLayout, PrefixKv, SequenceKv, SuffixKv};
use super::model::{Behind, CpuModel, Done, ImageFeatures, NewPrefix, Suffix, Work};
use super::rows::{Rows, RowsMut};
use super::team::Scratch;
use super::times::{Part, Stopwatch};
use super::weights::row_stride;
use super::workspace::{Block, Packed, Widths, Workspace};
use crate::LoadError;
use crate::ops::RopeTable;

/// transformers counts PaliGemma's positions from 1.
const FIRST_POSITION: u32 = 1;

/// One forward pass of the decoder: all new prefixes, then all responses, as packed rows.
pub(super) struct Pass<'a> {
    model: &'a CpuModel,
    sequences: Vec<Sequence<'a>>,
    /// Rows of sequences whose states nobody reads after the last layer's keys and values.
    silent: usize,
    rows: usize,
    /// Of every packed row.
    positions: Vec<u32>,
}

/// Consecutive packed rows, and what they see.
struct Sequence<'a> {
    rows: Range<usize>,
    source: Source<'a>,
    shared: Option<Shared>,
    own: SequenceKv,
    kept: Kept,
    /// Logits are wanted for this many rows at the end.
    scored: usize,
}

/// What becomes layer 0's input.
enum Source<'a> {
    /// Image rows, then tokens; every row sees every other.
    Prefix(NewPrefix<'a>),
    /// Tokens; a row sees those before it.
    Tokens(&'a [u32]),
}

#[derive(Clone)]
enum Shared {
    /// The prefix of this sequence of the pass.
    New(usize),
    Cached(Arc<PrefixKv>),
}

/// What keys and values a sequence leaves behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// All layers'.
    All,
    /// None: one layer's are held at a time.
    Nothing,
}

// === impl Pass ===

impl<'a> Pass<'a> {
    pub(super) fn new(model: &'a CpuModel, work: Work<'a>) -> Self {
        let mut pass = Self::empty(model);
        for prefix in work.prefixes {
            pass.add_prefix(prefix, Kept::All, 0);
        }
        pass.silent = pass.rows;
        for suffix in work.suffixes {
            pass.add_suffix(suffix);
        }
        pass
    }

    /// Sequences in which everything sees everything, with the number of rows at the end of each
    /// that are scored.
    pub(super) fn full(model: &'a CpuModel, sequences: Vec<(NewPrefix<'a>, usize)>) -> Self {
        let mut pass = Self::empty(model);
        for (whole, scored) in sequences {
            pass.add_prefix(whole, Kept::Nothing, scored);
        }
        pass
    }

    fn empty(model: &'a CpuModel) -> Self {
        Self { model, sequences: Vec::new(), silent: 0, rows: 0, positions: Vec::new() }
    }

    fn add_prefix(&mut self, prefix: NewPrefix<'a>, kept: Kept, scored: usize) {
        let rows = self.model.image_tokens() + prefix.prompt.len();
        let own = self.new_kv(kept);
        self.add(rows, 0, Source::Prefix(prefix), None, own, kept, scored);
    }

    fn add_suffix(&mut self, suffix: Suffix<'a>) {
        let tokens = suffix.tokens();
        let (shared, own, kept) = match suffix {
            Suffix::Whole { prefix, .. } => {
                (Shared::from(prefix), self.new_kv(Kept::Nothing), Kept::Nothing)
            }
            Suffix::First { prefix, .. } => {
                (Shared::from(prefix), self.new_kv(Kept::All), Kept::All)
            }
            Suffix::Next { so_far: SuffixKv { prefix, own }, .. } => {
                (Shared::Cached(prefix), own, Kept::All)
            }
        };
        let before = own.rows()
            + match &shared {
                Shared::New(prefix) => self.sequences[*prefix].rows.len(),
                Shared::Cached(prefix) => prefix.rows(),
            };
        let scored = tokens.len();
        self.add(scored, before, Source::Tokens(tokens), Some(shared), own, kept, scored);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a sequence, in one place")]
    fn add(
        &mut self,
        rows: usize,
        before: usize,
        source: Source<'a>,
        shared: Option<Shared>,
        own: SequenceKv,
        kept: Kept,
        scored: usize,
    ) {
        let first = before as u32 + FIRST_POSITION;
        self.positions.extend((0..rows as u32).map(|row| first + row));
        let rows = self.rows..self.rows + rows;
        self.rows = rows.end;
        self.sequences.push(Sequence { rows, source, shared, own, kept, scored });
    }

    fn new_kv(&self, kept: Kept) -> SequenceKv {
        let layout = self.model.layout();
        SequenceKv::new(match kept {
            Kept::All => layout,
            Kept::Nothing => KvLayout { layers: 1, ..layout },
        })
    }

    pub(super) fn run(mut self, space: &mut Workspace) -> Result<Done, LoadError> {
        let model = self.model;
        let last_position = self.positions.iter().copied().max().unwrap_or(0);
        let table = model.angles(last_position);
        let angles = (&*table, self.positions.as_slice());
        let threads = space.threads();
        let Workspace { team, rows: buffers, times } = space;
        let watch = Stopwatch::start();
        let mut packed = buffers.pack(model.widths(), self.rows);
        let silent = self.silent;
        let all = [0..silent, silent..self.rows];
        let part = |block: &Block<'_>| {
            if block.rows.end <= silent { Part::Prefixes } else { Part::Responses }
        };
        let depth = model.layers.len();
        let error = Mutex::new(None);
        team.run(packed.blocks(&all, threads), |mut block, scratch| {
            watch.time(part(&block), || {
                if let Err(e) = embed(model, &self.sequences, &mut block) {
                    error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
                }
                project(model, 0, &mut block, angles, silent, scratch);
            });
        });
        if let Some(error) = error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let mut logits = vec![0.0; self.rows - self.silent];
        for layer in 0..depth {
            team.run(self.sequences.iter_mut().collect(), |sequence: &mut Sequence<'_>, _| {
                sequence.write(layer, &packed);
            });
            let views = views(&self.sequences, layer);
            if layer + 1 < depth {
                team.run(packed.blocks(&all, threads), |mut block, scratch| {
                    watch.time(part(&block), || {
                        model.layers[layer].finish(&views, &mut block, scratch);
                        project(model, layer + 1, &mut block, angles, silent, scratch);
                    });
                });
            } else {
                let blocks = packed.blocks(&all[1..], threads);
                let mut rest = logits.as_mut_slice();
                let tasks = blocks.into_iter().map(|block| {
                    let (own, after) = std::mem::take(&mut rest).split_at_mut(block.rows.len());
                    rest = after;
                    (block, own)
                });
                team.run(tasks.collect(), |(mut block, logits), scratch| {
                    let layer = &model.layers[layer];
                    watch.time(Part::Responses, || layer.finish(&views, &mut block, scratch));
                    watch.time(Part::Head, || read(model, &block, scratch, logits));
                });
            }
        }
        *times += watch.stop();
        Ok(self.finish(&logits))
    }

    fn finish(self, logits: &[f32]) -> Done {
        let mut done = Done { logits: Vec::new(), prefixes: Vec::new(), suffixes: Vec::new() };
        for mut sequence in self.sequences {
            let rows = sequence.rows;
            sequence.own.grow(rows.len());
            let is_prefix = sequence.shared.is_none();
            if !is_prefix || sequence.kept == Kept::Nothing {
                let end = rows.end - self.silent;
                done.logits.push(logits[end - sequence.scored..end].to_vec());
            }
            match (sequence.shared, sequence.kept) {
                (None, Kept::All) => done.prefixes.push(Arc::new(PrefixKv(sequence.own))),
                (Some(shared), Kept::All) => {
                    let prefix = match shared {
                        Shared::New(prefix) => Arc::clone(&done.prefixes[prefix]),
                        Shared::Cached(prefix) => prefix,
                    };
                    done.suffixes.push(Some(SuffixKv { prefix, own: sequence.own }));
                }
                (_, Kept::Nothing) => done.suffixes.push(None),
            }
        }
        done
    }
}

// === impl Sequence ===

impl Sequence<'_> {
    fn slot(&self, layer: usize) -> usize {
        if self.kept == Kept::All { layer } else { 0 }
    }

    fn write(&mut self, layer: usize, packed: &Packed<'_>) {
        let (key, value) = packed.key_values(&self.rows);
        self.own.write(self.slot(layer), key, value);
    }
}

// === impl Shared ===

impl From<Behind<'_>> for Shared {
    fn from(behind: Behind<'_>) -> Self {
        match behind {
            Behind::New(prefix) => Self::New(prefix),
            Behind::Cached(prefix) => Self::Cached(Arc::clone(prefix)),
        }
    }
}

/// What the rows of each sequence see in a layer.
fn views<'s>(sequences: &'s [Sequence<'_>], layer: usize) -> Vec<View<'s>> {
    sequences
        .iter()
        .filter(|sequence| !sequence.rows.is_empty())
        .map(|sequence| {
            let past = sequence.own.rows();
            View {
                rows: sequence.rows.clone(),
                shared: sequence.shared.as_ref().map(|shared| match shared {
                    Shared::New(at) => {
                        let prefix = &sequences[*at];
                        Keys { kv: &prefix.own, layer, rows: prefix.rows.len() }
                    }
                    Shared::Cached(kv) => Keys { kv: &kv.0, layer, rows: kv.rows() },
                }),
                own: Keys {
                    kv: &sequence.own,
                    layer: sequence.slot(layer),
                    rows: past + sequence.rows.len(),
                },
                past,
                causal: matches!(sequence.source, Source::Tokens(_)),
            }
        })
        .collect()
}

/// Layer 0's input: image rows as the projector gives them, text rows times `√hidden`.
fn embed(
    model: &CpuModel,
    sequences: &[Sequence<'_>],
    block: &mut Block<'_>,
) -> Result<(), LoadError> {
    let images = model.image_tokens();
    let all = block.rows.clone();
    let first = sequences.partition_point(|s| s.rows.end <= all.start);
    for sequence in sequences[first..].iter().take_while(|s| s.rows.start < all.end) {
        let start = sequence.rows.start;
        let rows = start.max(all.start)..sequence.rows.end.min(all.end);
        let (tokens, image_rows) = match &sequence.source {
            Source::Tokens(tokens) => (*tokens, start..start),
            Source::Prefix(prefix) => {
                let own = rows.start..rows.end.min(start + images).max(rows.start);
                project_image(model, prefix.features, start, &own, block);
                (prefix.prompt, start..start + images)
            }
        };
        for row in rows.start.max(image_rows.end)..rows.end {
            let id = tokens[row - image_rows.end];
            model.embedding.look_up(id, block.x.row_mut(row - all.start))?;
        }
    }
    Ok(())
}

/// The projector on those rows of an image that lie in the block.
fn project_image(
    model: &CpuModel,
    features: &ImageFeatures,
    start: usize,
    rows: &Range<usize>,
    block: &mut Block<'_>,
) {
    if rows.is_empty() {
        return;
    }
    let width = model.config.vision_config.hidden_size;
    let features = Rows::new(features.values(), width, 0).part(rows.start - start, rows.len(), 0);
    model.projector.forward(features, block.x.part(rows.start - block.rows.start, rows.len(), 0));
}

/// Queries, keys and values of a layer; of silent rows in the last one only the latter.
fn project(
    model: &CpuModel,
    layer: usize,
    block: &mut Block<'_>,
    angles: (&RopeTable, &[u32]),
    silent: usize,
    scratch: &mut Scratch,
) {
    let last = layer + 1 == model.layers.len();
    let what = if last && block.rows.end <= silent { Project::KeyValues } else { Project::All };
    model.layers[layer].project(block, what, angles, scratch);
}

/// The head on the states after the final norm.
fn read(model: &CpuModel, block: &Block<'_>, scratch: &mut Scratch, logits: &mut [f32]) {
    let count = block.rows.len();
    let stride = row_stride(model.head.len());
    let mut normed = RowsMut::new(scratch.normed.room(count * stride), stride, count);
    model.norm.forward(block.x.as_rows(), normed.part(0, count, 0));
    for (row, logit) in logits.iter_mut().enumerate() {
        *logit = element::dot(normed.row(row), &model.head) + model.head_bias;
    }
}

impl CpuModel {
    pub(super) fn widths(&self) -> Widths {
        let text = &self.config.text_config;
        Widths {
            hidden: text.hidden_size,
            query: text.num_attention_heads * text.head_dim,
            key_value: text.num_key_value_heads * text.head_dim,
        }
    }
}
