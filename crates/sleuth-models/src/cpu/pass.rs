mod decoder;
mod sequence;
mod stages;
mod thin;

use std::sync::{Arc, Mutex, PoisonError};

pub(super) use self::decoder::{Decoder, Sees};
use self::sequence::{Kept, Sequence, Shared, Source, blind, views};
pub(super) use self::stages::Read;
use self::stages::{embed, project, read};
pub(super) use super::decoder::Project;
use super::kv::{KvLayout, PrefixKv, SequenceKv, SuffixKv};
use super::team::Team;
use super::times::{Part, Stopwatch};
use super::workspace::{Block, Packed, Workspace};
use super::{Behind, Done, NewPrefix, Suffix, Work};
use crate::LoadError;

/// One forward pass of the decoder: all new prefixes, then all responses, as packed rows.
pub(super) struct Pass<'a, D: Decoder> {
    model: &'a D,
    sequences: Vec<Sequence<'a, D::Features>>,
    /// Rows whose states nobody reads after the last layer's keys and values: all of new prefixes,
    /// but for the last of one that goes on as language.
    silent: usize,
    rows: usize,
    /// Of every packed row.
    positions: Vec<u32>,
}

// === impl Pass ===

impl<'a, D: Decoder> Pass<'a, D> {
    pub(super) fn new(model: &'a D, work: Work<'a, D::Features>) -> Self {
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
    pub(super) fn full(model: &'a D, sequences: Vec<(NewPrefix<'a, D::Features>, usize)>) -> Self {
        let mut pass = Self::empty(model);
        for (whole, scored) in sequences {
            pass.add_prefix(whole, Kept::Nothing, scored);
        }
        pass
    }

    /// One new prefix, of which the last row's state is read too.
    pub(super) fn prefill(model: &'a D, prefix: NewPrefix<'a, D::Features>) -> Self {
        let mut pass = Self::empty(model);
        pass.add_prefix(prefix, Kept::All, 1);
        pass.silent = pass.rows - 1;
        pass
    }

    fn empty(model: &'a D) -> Self {
        Self { model, sequences: Vec::new(), silent: 0, rows: 0, positions: Vec::new() }
    }

    fn add_prefix(&mut self, prefix: NewPrefix<'a, D::Features>, kept: Kept, scored: usize) {
        let rows = self.model.image_rows() + prefix.prompt.len();
        let image = self.model.image(prefix.features, prefix.prompt);
        let own = self.new_kv(kept);
        let sequence = Sequence {
            blind: image.as_ref().map_or(0, |(_, before)| *before),
            image: image.map(|(image, _)| image),
            causal: D::CAUSAL_PREFIX,
            scored,
            ..self.sequence(Source::Prefix(prefix), None, own, kept)
        };
        self.add(rows, 0, sequence);
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
        let (prefix_rows, image) = match &shared {
            Shared::New(prefix) => {
                let prefix = &self.sequences[*prefix];
                (prefix.rows.len(), prefix.image.clone())
            }
            Shared::Cached(prefix) => (prefix.rows(), prefix.image.clone()),
        };
        let before = own.rows() + prefix_rows;
        let scored = tokens.len();
        let source = Source::Tokens(tokens);
        let sequence = Sequence { image, scored, ..self.sequence(source, Some(shared), own, kept) };
        self.add(scored, before, sequence);
    }

    /// A causal sequence without rows so far.
    fn sequence(
        &self,
        source: Source<'a, D::Features>,
        shared: Option<Shared>,
        own: SequenceKv,
        kept: Kept,
    ) -> Sequence<'a, D::Features> {
        let rows = self.rows..self.rows;
        Sequence { rows, source, shared, own, kept, causal: true, image: None, blind: 0, scored: 0 }
    }

    /// Packs `rows` rows, which stand behind `before` others of their sequence.
    fn add(&mut self, rows: usize, before: usize, mut sequence: Sequence<'a, D::Features>) {
        let first = before as u32 + D::FIRST_POSITION;
        self.positions.extend((0..rows as u32).map(|row| first + row));
        sequence.rows = self.rows..self.rows + rows;
        self.rows = sequence.rows.end;
        self.sequences.push(sequence);
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
        let values = self.run_blocks(space, read)?;
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
        let depth = model.depth();
        let blind = blind(&self.sequences);
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
            let sees = model.sees(layer);
            write(&mut self.sequences, sees, &packed, team);
            let views = views(&self.sequences, sees);
            let seen = (views.as_slice(), blind.as_slice());
            if layer + 1 < depth {
                team.run(packed.blocks(&all, threads), |mut block, scratch| {
                    watch.time(part(&block), || {
                        model.finish(layer, seen, &mut block, scratch);
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
                    watch.time(Part::Responses, || {
                        model.finish(layer, seen, &mut block, scratch);
                    });
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
                (None, Kept::All) => {
                    let (own, image) = (sequence.own, sequence.image);
                    done.prefixes.push(Arc::new(PrefixKv { own, image }));
                }
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

/// Keeps each row's keys and values of a layer that has them.
fn write<F: Sync>(sequences: &mut [Sequence<'_, F>], sees: Sees, packed: &Packed<'_>, team: &Team) {
    let Sees::Own(place) = sees else { return };
    team.run(sequences.iter_mut().collect(), |sequence: &mut Sequence<'_, F>, _| {
        sequence.write(place, packed);
    });
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
