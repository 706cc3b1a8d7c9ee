use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Device, Layout, Result, Shape, Tensor};

use super::elementary::exp;
use super::rows::{f32_slice, for_rows, lane_dot, lane_sum};

/// The keys that one query row sees: all of `0..shared`, and `own_start..own_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowKeys {
    /// Keys of the shared prefix.
    pub shared: u32,
    /// First key of the row's own sequence; at least `shared`.
    pub own_start: u32,
    /// One past the row's last visible key.
    pub own_end: u32,
}

/// `softmax(scale · scores)` over the keys that each row sees; all others get exactly 0.
///
/// `scores` is `[batch, rows, keys]`, f32; `visible[r % visible.len()]` says what row `r` sees, so
/// that query heads stacked into rows share one description. Every row must see a key.
/// Differentiable.
pub fn attention_softmax(scores: &Tensor, scale: f64, visible: &Arc<[RowKeys]>) -> Result<Tensor> {
    if scores.device().is_cpu() {
        let op = AttentionSoftmax::new(scale as f32, Arc::clone(visible));
        return scores.contiguous()?.apply_op1(op);
    }
    by_primitives(scores, scale, visible)
}

/// The same by candle's own operations, for other devices.
fn by_primitives(scores: &Tensor, scale: f64, visible: &[RowKeys]) -> Result<Tensor> {
    let (_, rows, keys) = scores.dims3()?;
    let mut scores = (scores * scale)?;
    if visible.iter().any(|see| see.shared as usize != keys) {
        scores = scores.broadcast_add(&additive_mask(visible, rows, keys, scores.device())?)?;
    }
    let exp = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

pub(super) struct AttentionSoftmax {
    scale: f32,
    visible: Arc<[RowKeys]>,
}

pub(super) struct AttentionSoftmaxGrad {
    scale: f32,
}

fn additive_mask(visible: &[RowKeys], rows: usize, keys: usize, device: &Device) -> Result<Tensor> {
    let mut mask = vec![f32::NEG_INFINITY; rows * keys];
    for (row, mask) in mask.chunks_exact_mut(keys.max(1)).enumerate() {
        let see = visible[row % visible.len()];
        mask[..see.shared as usize].fill(0.0);
        mask[see.own_start as usize..see.own_end as usize].fill(0.0);
    }
    Tensor::from_vec(mask, (rows, keys), device)
}

// === impl AttentionSoftmax ===

impl AttentionSoftmax {
    pub(super) fn new(scale: f32, visible: Arc<[RowKeys]>) -> Self {
        Self { scale, visible }
    }
}

impl CustomOp1 for AttentionSoftmax {
    fn name(&self) -> &'static str {
        "attention-softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, rows, keys) = layout.shape().dims3()?;
        let scores = f32_slice(storage, layout)?;
        let mut out = vec![0.0; scores.len()];
        for_rows(&mut out, keys, |row, out| {
            let see = self.visible[(row % rows) % self.visible.len()];
            let scores = &scores[row * keys..(row + 1) * keys];
            let (shared, own) =
                (0..see.shared as usize, see.own_start as usize..see.own_end as usize);
            let max =
                row_max(&scores[own.clone()], row_max(&scores[shared.clone()], f32::NEG_INFINITY));
            let mut sum = 0.0;
            for part in [shared.clone(), own.clone()] {
                for (out, &s) in out[part.clone()].iter_mut().zip(&scores[part.clone()]) {
                    *out = exp((s - max) * self.scale);
                }
                sum += lane_sum(&out[part], |p| p);
            }
            let inverse = 1.0 / sum;
            for part in [shared, own] {
                for out in &mut out[part] {
                    *out *= inverse;
                }
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _arg: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let op = AttentionSoftmaxGrad { scale: self.scale };
        Ok(Some(res.apply_op2_no_bwd(&grad.contiguous()?, &op)?))
    }
}

/// The largest of `values` and `start`.
#[inline(always)]
pub(crate) fn row_max(values: &[f32], start: f32) -> f32 {
    let mut lanes = [start; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = if value > *lane { value } else { *lane };
    }
    lanes.into_iter().fold(start, f32::max)
}

// === impl AttentionSoftmaxGrad ===

impl AttentionSoftmaxGrad {
    pub(super) fn new(scale: f32) -> Self {
        Self { scale }
    }
}

impl CustomOp2 for AttentionSoftmaxGrad {
    fn name(&self) -> &'static str {
        "attention-softmax-grad"
    }

    /// `ds = scale · p · (g - Σ g·p)`; hidden keys have `p = 0` and so get no gradient.
    fn cpu_fwd(
        &self,
        p: &CpuStorage,
        p_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, _, keys) = p_layout.shape().dims3()?;
        let p = f32_slice(p, p_layout)?;
        let mut out = f32_slice(grad, grad_layout)?.to_vec();
        for_rows(&mut out, keys, |row, grad| {
            let p = &p[row * keys..(row + 1) * keys];
            let dot = lane_dot(grad, p);
            for (grad, &p) in grad.iter_mut().zip(p) {
                *grad = self.scale * p * (*grad - dot);
            }
        });
        Ok((CpuStorage::F32(out), p_layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    #[test]
    fn agrees_with_a_masked_softmax_forward_and_backward() {
        let visible: Arc<[RowKeys]> = [
            RowKeys { shared: 4, own_start: 4, own_end: 5 },
            RowKeys { shared: 4, own_start: 6, own_end: 9 },
            RowKeys { shared: 0, own_start: 9, own_end: 11 },
        ]
        .into();
        let scores = Var::randn(0_f32, 3_f32, (2, 6, 11), &Device::Cpu).unwrap();
        let ours = attention_softmax(&scores, 0.7, &visible).unwrap();
        let mask = additive_mask(&visible, 6, 11, &Device::Cpu).unwrap();
        let masked = (scores.as_tensor() * 0.7).unwrap().broadcast_add(&mask).unwrap();
        let theirs = candle_nn::ops::softmax(&masked, D::Minus1).unwrap();
        let probe = Tensor::randn(0_f32, 1_f32, (2, 6, 11), &Device::Cpu).unwrap();
        let grad = |y: &Tensor| {
            let loss = (y * &probe).unwrap().sum_all().unwrap();
            loss.backward().unwrap().get(&scores).unwrap().clone()
        };
        for (a, b) in [(ours.clone(), theirs.clone()), (grad(&ours), grad(&theirs))] {
            let diff =
                (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(diff < 1e-6, "{diff}");
        }
    }

    #[test]
    fn candles_own_operations_give_the_same() {
        let some = RowKeys { shared: 4, own_start: 6, own_end: 9 };
        let all = RowKeys { shared: 11, own_start: 11, own_end: 11 };
        let scores = Tensor::randn(0_f32, 3_f32, (2, 6, 11), &Device::Cpu).unwrap();
        for visible in [vec![some], vec![all], vec![some, all, some]] {
            let theirs = by_primitives(&scores, 0.7, &visible).unwrap();
            let ours = attention_softmax(&scores, 0.7, &visible.into()).unwrap();
            let diff = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
            assert!(diff.to_scalar::<f32>().unwrap() < 1e-6);
        }
    }

    #[test]
    fn hidden_keys_get_exactly_zero() {
        let visible: Arc<[RowKeys]> = [RowKeys { shared: 1, own_start: 2, own_end: 3 }].into();
        let scores = Tensor::new(&[[[0_f32, 900.0, 0.0, f32::NAN]]], &Device::Cpu).unwrap();
        let p = attention_softmax(&scores, 1.0, &visible).unwrap();
        assert_eq!(p.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0.5, 0.0, 0.5, 0.0]);
    }
}
