mod stages;
mod thin;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

pub(super) use self::stages::Read;
use self::stages::{embed, project, read};
use super::attention::{Keys, View};
use super::kv::{KvLayout, PrefixKv, SequenceKv, SuffixKv};
use super::model::CpuModel;
use super::times::{Part, Stopwatch};
use super::workspace::{Block, Packed, Widths, Workspace};
use super::{Behind, Done, NewPrefix, Suffix, Work};
use crate::LoadError;

/// transformers counts PaliGemma's positions from 1.
const FIRST_POSITION: u32 = 1;

/// One forward pass of the decoder: all new prefixes, then all responses, as packed rows.
pub(super) struct Pass<'a> {
    model: &'a CpuModel,
    sequences: Vec<Sequence<'a>>,
    /// Rows whose states nobody reads after the last layer's keys and values: all of new prefixes,
    /// but for the last of one that goes on as language.
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

    /// One new prefix, of which the last row's state is read too.
    pub(super) fn prefill(model: &'a CpuModel, prefix: NewPrefix<'a>) -> Self {
        let mut pass = Self::empty(model);
        pass.add_prefix(prefix, Kept::All, 1);
        pass.silent = pass.rows - 1;
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

    /// The pass; what is read of each sequence comes as its `logits`.
    pub(super) fn run(mut self, space: &mut Workspace, read: Read) -> Result<Done, LoadError> {
        let width = read.width(self.model);
        let values = if read == Read::State && self.is_thin(space.threads()) {
            self.run_thin(space)?
        } else {
            self.run_blocks(space, read)?
        };
        Ok(self.finish(&values, width))
    }

    fn run_blocks(&mut self, space: &mut Workspace, what: Read) -> Result<Vec<f32>, LoadError> {
        let model = self.model;
        let width = what.width(model);
        let last_position = self.positions.iter().copied().max().unwrap_or(0);
        let table = model.angles(last_position);
        let angles = (&*table, self.positions.as_slice());
        let threads = space.threads();
        let Workspace { team, rows: buffers, times, .. } = space;
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
        let mut values = vec![0.0; (self.rows - self.silent) * width];
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
                let mut rest = values.as_mut_slice();
                let tasks = blocks.into_iter().map(|block| {
                    let own = block.rows.len() * width;
                    let (own, after) = std::mem::take(&mut rest).split_at_mut(own);
                    rest = after;
                    (block, own)
                });
                team.run(tasks.collect(), |(mut block, values), scratch| {
                    let layer = &model.layers[layer];
                    watch.time(Part::Responses, || layer.finish(&views, &mut block, scratch));
                    watch.time(Part::Head, || read(model, what, &block, scratch, values));
                });
            }
        }
        *times += watch.stop();
        Ok(values)
    }

    fn finish(self, values: &[f32], width: usize) -> Done {
        let mut done = Done { logits: Vec::new(), prefixes: Vec::new(), suffixes: Vec::new() };
        for mut sequence in self.sequences {
            let rows = sequence.rows;
            sequence.own.grow(rows.len());
            let is_prefix = sequence.shared.is_none();
            if !is_prefix || sequence.kept == Kept::Nothing || sequence.scored > 0 {
                let end = rows.end - self.silent;
                done.logits.push(values[(end - sequence.scored) * width..end * width].to_vec());
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

impl CpuModel {
    pub(super) fn widths(&self) -> Widths {
        Widths::of(&self.config.text_config)
    }
}
