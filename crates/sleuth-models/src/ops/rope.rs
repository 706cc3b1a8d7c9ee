use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, D, Device, Layout, Result, Shape, Tensor};

use super::rows::{f32_slice, map_rows};

/// Cosines and sines of the rotary embedding at given positions, computed in f64 and kept in f32.
///
/// `[rows, head_dim / 2]` each.
#[derive(Clone, Debug)]
pub struct RopeTable {
    half: usize,
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
}

/// Rotates `x` `[rows, heads, head_dim]` by the half-split ("rotate_half") layout. Differentiable.
///
/// Row `r` is rotated by the table's row `r`.
pub fn rope(x: &Tensor, table: &RopeTable) -> Result<Tensor> {
    if x.device().is_cpu() {
        return x.contiguous()?.apply_op1(Rope { table: table.clone(), inverse: false });
    }
    let (cos, sin) = table.tensors(x.device())?;
    let a = x.narrow(D::Minus1, 0, table.half)?;
    let b = x.narrow(D::Minus1, table.half, table.half)?;
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    Tensor::cat(&[first, second], D::Minus1)
}

/// `theta^(-2i / head_dim)` for each pair of a head's elements.
pub fn rope_frequencies(head_dim: usize, theta: f64) -> Vec<f32> {
    (0..head_dim / 2).map(|i| (1.0 / theta.powf(2.0 * i as f64 / head_dim as f64)) as f32).collect()
}

struct Rope {
    table: RopeTable,
    inverse: bool,
}

// === impl RopeTable ===

impl RopeTable {
    /// Angles `position · theta^(-2i / head_dim)` for the given positions.
    pub fn new(positions: impl IntoIterator<Item = u32>, head_dim: usize, theta: f64) -> Self {
        Self::with_frequencies(positions, &rope_frequencies(head_dim, theta))
    }

    /// Angles `position · frequency`; there is a frequency for each pair of a head's elements.
    pub fn with_frequencies(positions: impl IntoIterator<Item = u32>, frequencies: &[f32]) -> Self {
        let half = frequencies.len();
        // As the reference: the angle is an f32 product, its cosine is then taken exactly.
        let angles = positions
            .into_iter()
            .flat_map(|p| frequencies.iter().map(move |f| f64::from(p as f32 * f)))
            .collect::<Vec<_>>();
        Self {
            half,
            cos: angles.iter().map(|a| a.cos() as f32).collect(),
            sin: angles.iter().map(|a| a.sin() as f32).collect(),
        }
    }
}

impl RopeTable {
    /// Cosines and sines of a row.
    pub(crate) fn row(&self, row: usize) -> (&[f32], &[f32]) {
        let row = row * self.half..(row + 1) * self.half;
        (&self.cos[row.clone()], &self.sin[row])
    }

    /// Rows.
    pub(crate) fn rows(&self) -> usize {
        self.cos.len() / self.half
    }

    /// Cosines and sines on a device, `[rows, 1, head_dim / 2]` each.
    pub(crate) fn tensors(&self, device: &Device) -> Result<(Tensor, Tensor)> {
        let shape = (self.rows(), 1, self.half);
        Ok((
            Tensor::from_slice(&self.cos, shape, device)?,
            Tensor::from_slice(&self.sin, shape, device)?,
        ))
    }

    /// The table of the rows from `start` on.
    #[must_use]
    pub fn from_row(&self, start: usize) -> Self {
        if start == 0 {
            return self.clone();
        }
        Self {
            half: self.half,
            cos: self.cos[start * self.half..].into(),
            sin: self.sin[start * self.half..].into(),
        }
    }
}

// === impl Rope ===

impl CustomOp1 for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, heads, head_dim) = layout.shape().dims3()?;
        let half = self.table.half;
        let sign = if self.inverse { -1.0 } else { 1.0 };
        let out = map_rows(f32_slice(storage, layout)?, heads * head_dim, |row, x, out| {
            let cos = &self.table.cos[row * half..(row + 1) * half];
            let sin = &self.table.sin[row * half..(row + 1) * half];
            for (x, out) in x.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)) {
                let (a, b) = x.split_at(half);
                let (first, second) = out.split_at_mut(half);
                for i in 0..half {
                    first[i] = a[i] * cos[i] - sign * b[i] * sin[i];
                    second[i] = b[i] * cos[i] + sign * a[i] * sin[i];
                }
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let inverse = Self { table: self.table.clone(), inverse: !self.inverse };
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&inverse)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    #[test]
    fn the_gradient_is_the_inverse_rotation() {
        let table = RopeTable::new([0, 5, 1030], 8, 10_000.0);
        let x = Var::randn(0_f32, 1_f32, (3, 2, 8), &Device::Cpu).unwrap();
        // d/dx of |rope(x)|²/2 is the inverse rotation of rope(x), which is x itself.
        let y = rope(&x, &table).unwrap();
        let loss = ((&y * &y).unwrap().sum_all().unwrap() * 0.5).unwrap();
        let grad = loss.backward().unwrap().get(&x).unwrap().clone();
        let diff = (grad - x.as_tensor()).unwrap().abs().unwrap().max_all().unwrap();
        assert!(diff.to_scalar::<f32>().unwrap() < 1e-5);
    }

    #[test]
    fn late_positions_keep_their_angles() {
        // In bf16 1025 and 1027 would be the same position (reference 3.2).
        let table = RopeTable::new([1025, 1027], 4, 10_000.0);
        assert!((f64::from(table.cos[0]) - 1025_f64.cos()).abs() < 1e-6);
        assert!((f64::from(table.cos[2]) - 1027_f64.cos()).abs() < 1e-6);
    }
}
