use candle_core::{Device, Shape};
use memmap2::MmapMut;
use rayon::prelude::*;

use super::element;
use super::kernel::{Lane, Panels, Start, WIDTH, multiply};
use super::rows::{Rows, RowsMut};
use crate::LoadError;
use crate::checkpoint::Checkpoint;

/// The tensors of one module of a checkpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Module<'a> {
    checkpoint: &'a Checkpoint,
    path: &'a str,
}

/// A linear layer whose weight is packed into panels of sixteen outputs, once.
#[derive(Debug)]
pub(super) struct Linear {
    panels: Lanes,
    inputs: usize,
    outputs: usize,
    /// Padded with zeros to whole panels.
    bias: Option<Vec<f32>>,
}

/// Zeroed lanes in pages of the system's large size where it has them: weights are read from end
/// to end at every pass, which is many small pages.
#[derive(Debug)]
struct Lanes(MmapMut);

/// The next multiple of a panel's width.
pub(super) const fn padded(columns: usize) -> usize {
    columns.next_multiple_of(WIDTH)
}

/// The distance between rows of `columns` f32: whole lanes, and never a power of two, so that rows
/// do not fall onto the same lines of a cache.
pub(super) const fn row_stride(columns: usize) -> usize {
    padded(columns) + WIDTH
}

// === impl Module ===

impl<'a> Module<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint, path: &'a str) -> Self {
        Self { checkpoint, path }
    }

    /// A tensor of exactly this shape, in f32.
    pub(super) fn values(
        &self,
        name: &str,
        shape: impl Into<Shape>,
    ) -> Result<Vec<f32>, LoadError> {
        let name = format!("{}.{name}", self.path);
        let tensor = self.checkpoint.tensor(&name, &shape.into(), &Device::Cpu)?;
        Ok(tensor.flatten_all()?.to_vec1()?)
    }

    /// The module itself as a linear layer without bias.
    pub(super) fn weight(&self, inputs: usize, outputs: usize) -> Result<Linear, LoadError> {
        Linear::pack(&self.values("weight", (outputs, inputs))?, inputs, outputs, None)
    }

    /// The linear layer `name`, with its bias where it has one.
    pub(super) fn linear(
        &self,
        name: &str,
        inputs: usize,
        outputs: usize,
        bias: bool,
    ) -> Result<Linear, LoadError> {
        let weight = self.values(&format!("{name}.weight"), (outputs, inputs))?;
        let bias = if bias { Some(self.values(&format!("{name}.bias"), outputs)?) } else { None };
        Linear::pack(&weight, inputs, outputs, bias)
    }
}

// === impl Linear ===

impl Linear {
    /// Packs `weight` `[outputs, inputs]`.
    pub(super) fn pack(
        weight: &[f32],
        inputs: usize,
        outputs: usize,
        bias: Option<Vec<f32>>,
    ) -> Result<Self, LoadError> {
        let mut panels = Lanes::zeroed(outputs.div_ceil(WIDTH) * inputs)?;
        panels.as_mut().par_chunks_mut(inputs).enumerate().for_each(|(j, panel)| {
            let rows = weight[j * WIDTH * inputs..].chunks_exact(inputs).take(WIDTH);
            for (column, row) in rows.enumerate() {
                for (lane, &value) in panel.iter_mut().zip(row) {
                    lane[column] = value;
                }
            }
        });
        let bias = bias.map(|mut bias| {
            bias.resize(padded(outputs), 0.0);
            bias
        });
        Ok(Self { panels, inputs, outputs, bias })
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(super) fn bytes(&self) -> u64 {
        size_of_val(self.panels.as_ref()) as u64
    }

    /// Bytes of a layer before it is packed.
    pub(super) const fn bytes_for(inputs: usize, outputs: usize) -> u64 {
        (inputs * padded(outputs) * size_of::<f32>()) as u64
    }

    /// Panels of sixteen outputs.
    pub(super) fn panel_count(&self) -> usize {
        self.outputs.div_ceil(WIDTH)
    }

    /// Weights that a product reads.
    pub(super) fn weights(&self) -> usize {
        self.inputs * self.outputs
    }

    fn panels(&self) -> Panels<'_> {
        Panels::new(self.panels.as_ref(), self.inputs, self.inputs)
    }

    /// `out = x · weightᵀ (+ bias)`; `out` has room for whole panels.
    pub(super) fn forward(&self, x: Rows<'_>, out: RowsMut<'_>) {
        self.columns(x, 0, self.panels().count(), out);
    }

    /// The outputs of the panels `from..to` alone.
    pub(super) fn columns(&self, x: Rows<'_>, from: usize, to: usize, mut out: RowsMut<'_>) {
        let rows = x.count();
        multiply(x, self.panels().range(from, to), out.part(0, rows, 0), Start::Zero);
        if let Some(bias) = &self.bias {
            element::add_row(out, &bias[from * WIDTH..to * WIDTH]);
        }
    }
}

// === impl Lanes ===

impl Lanes {
    fn zeroed(count: usize) -> Result<Self, LoadError> {
        let map = MmapMut::map_anon(count * size_of::<Lane>()).map_err(LoadError::Memory)?;
        // Only advice: a system without large pages serves small ones.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self(map))
    }

    /// The map starts on a page, so that nothing is left before or after.
    fn as_ref(&self) -> &[Lane] {
        bytemuck::cast_slice(&self.0)
    }

    fn as_mut(&mut self) -> &mut [Lane] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "small integers are exact")]
mod tests {
    use super::*;

    #[test]
    fn a_packed_layer_multiplies_by_the_transposed_weight() {
        let weight: Vec<f32> = (0..20 * 3).map(|i| i as f32).collect();
        let bias = (0..20).map(|i| 100.0 * i as f32).collect();
        let linear = Linear::pack(&weight, 3, 20, Some(bias)).unwrap();
        let x = [1.0, 0.0, 2.0, 0.0, 1.0, 0.0];
        let mut out = vec![0.0; 2 * 32];
        linear.forward(Rows::new(&x, 3, 2), RowsMut::new(&mut out, 32, 2));
        for o in 0..20 {
            let w = &weight[o * 3..];
            assert_eq!(out[o], w[0] + 2.0 * w[2] + 100.0 * o as f32);
            assert_eq!(out[32 + o], w[1] + 100.0 * o as f32);
        }
        assert_eq!(out[20..32], [0.0; 12]);
        assert_eq!(linear.bytes(), 2 * 3 * 64);
    }
}
