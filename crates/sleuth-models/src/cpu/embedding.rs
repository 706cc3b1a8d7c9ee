use std::sync::Arc;

use candle_core::{Device, Shape};
use half::{bf16, f16};
use safetensors::Dtype;

use crate::LoadError;
use crate::checkpoint::Checkpoint;

/// The embedding of token ids, times a factor. It stays mapped in the type it is stored in: a pass
/// reads a few of its many rows.
#[derive(Debug)]
pub(super) struct Embedding {
    table: Table,
    hidden: usize,
    scale: f32,
}

#[derive(Debug)]
enum Table {
    Mapped(Arc<Checkpoint>),
    /// Changed by an adapter.
    Own(Vec<f32>),
}

const NAME: &str = "language_model.embed_tokens.weight";

// === impl Embedding ===

impl Embedding {
    /// Of `vocabulary` rows, each times `scale`. Checks shape, type and that all is finite.
    pub(super) fn load(
        checkpoint: &Arc<Checkpoint>,
        (vocabulary, hidden): (usize, usize),
        scale: f32,
    ) -> Result<Self, LoadError> {
        if checkpoint.is_adapted(NAME) {
            let shape = Shape::from((vocabulary, hidden));
            let table = checkpoint.tensor(NAME, &shape, &Device::Cpu)?.flatten_all()?.to_vec1()?;
            return Ok(Self { table: Table::Own(table), hidden, scale });
        }
        let own = Self { table: Table::Mapped(Arc::clone(checkpoint)), hidden, scale };
        let (dtype, shape, _) = checkpoint.stored(NAME)?;
        if shape != [vocabulary, hidden] {
            return Err(LoadError::Shape {
                name: NAME.to_owned(),
                expected: vec![vocabulary, hidden],
                found: shape,
            });
        }
        if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(LoadError::Type { name: NAME.to_owned(), found: format!("{dtype:?}") });
        }
        let mut row = vec![0.0; hidden];
        for id in 0..vocabulary {
            own.look_up(id as u32, &mut row)?;
            if row.iter().any(|x| !x.is_finite()) {
                return Err(LoadError::NotFinite { name: NAME.to_owned() });
            }
        }
        Ok(own)
    }

    /// Rows of the table.
    pub(super) fn bytes(&self) -> u64 {
        match &self.table {
            Table::Mapped(_) => 0,
            Table::Own(table) => size_of_val(table.as_slice()) as u64,
        }
    }

    /// Writes the embedding of `id`, which is below the vocabulary's size.
    pub(super) fn look_up(&self, id: u32, out: &mut [f32]) -> Result<(), LoadError> {
        let row = id as usize * self.hidden..(id as usize + 1) * self.hidden;
        match &self.table {
            Table::Own(table) => out[..self.hidden].copy_from_slice(&table[row]),
            Table::Mapped(checkpoint) => {
                let (dtype, _, bytes) = checkpoint.stored(NAME)?;
                let size = if dtype == Dtype::F32 { 4 } else { 2 };
                convert(dtype, &bytes[row.start * size..row.end * size], out);
            }
        }
        for x in &mut out[..self.hidden] {
            *x *= self.scale;
        }
        Ok(())
    }
}

/// Little-endian elements, as safetensors keeps them.
fn convert(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    if dtype == Dtype::F32 {
        for (out, x) in out.iter_mut().zip(bytes.as_chunks().0) {
            *out = f32::from_le_bytes(*x);
        }
        return;
    }
    for (out, x) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = match dtype {
            Dtype::BF16 => bf16::from_le_bytes(*x).to_f32(),
            _ => f16::from_le_bytes(*x).to_f32(),
        };
    }
}
