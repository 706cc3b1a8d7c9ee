use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor};

use super::rows::{f32_slice, for_rows, lane_sum, map_rows};

/// Gemma's RMS norm: `x / √(mean(x²) + eps) · (1 + weight)`, all in f32.
///
/// `x` is `[.., hidden]`, `weight` is `[hidden]`. Differentiable in both.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    normalise(x, Norm { centred: false, eps })?.broadcast_mul(&(weight + 1.0)?)
}

/// Layer norm over the last dimension, in f32: `(x - mean) / √(var + eps) · weight + bias`.
///
/// `x` is `[.., hidden]`, `weight` and `bias` are `[hidden]`. Differentiable in all three.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    normalise(x, Norm { centred: true, eps })?.broadcast_mul(weight)?.broadcast_add(bias)
}

/// Normalisation of each row, without the affine part.
#[derive(Clone, Copy)]
struct Norm {
    /// Whether the mean is taken off first.
    centred: bool,
    eps: f64,
}

struct NormGrad(Norm);

fn normalise(x: &Tensor, norm: Norm) -> Result<Tensor> {
    if x.device().is_cpu() {
        return x.contiguous()?.apply_op1(norm);
    }
    let x = if norm.centred { x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)? } else { x.clone() };
    let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(variance + norm.eps)?.sqrt()?)
}

// === impl Norm ===

impl Norm {
    /// Mean (0 where not centred) and `1/√(variance + eps)` of a row.
    #[inline(always)]
    fn statistics(self, row: &[f32]) -> (f32, f32) {
        let n = row.len() as f32;
        let mean = if self.centred { lane_sum(row, |x| x) / n } else { 0.0 };
        let variance = lane_sum(row, |x| (x - mean) * (x - mean)) / n;
        (mean, 1.0 / (variance + self.eps as f32).sqrt())
    }
}

impl CustomOp1 for Norm {
    fn name(&self) -> &'static str {
        "row-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = layout.shape().dims().last().copied().unwrap_or(1);
        let out = map_rows(f32_slice(storage, layout)?, width, |_, row, out| {
            let (mean, scale) = self.statistics(row);
            for (out, &x) in out.iter_mut().zip(row) {
                *out = (x - mean) * scale;
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(arg.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &NormGrad(*self))?))
    }
}

// === impl NormGrad ===

impl CustomOp2 for NormGrad {
    fn name(&self) -> &'static str {
        "row-norm-grad"
    }

    /// With `y` the normalised row: `dx = (g - mean(g)·[centred] - y·mean(g·y)) · scale`.
    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let width = x_layout.shape().dims().last().copied().unwrap_or(1);
        let x = f32_slice(x, x_layout)?;
        let mut out = f32_slice(grad, grad_layout)?.to_vec();
        for_rows(&mut out, width, |row, grad| {
            let x = &x[row * width..(row + 1) * width];
            let (mean, scale) = self.0.statistics(x);
            let n = width as f32;
            let grad_mean = if self.0.centred { lane_sum(grad, |g| g) / n } else { 0.0 };
            let dot: f32 = grad.iter().zip(x).map(|(g, x)| g * (x - mean) * scale).sum();
            let dot = dot / n;
            for (grad, &x) in grad.iter_mut().zip(x) {
                *grad = (*grad - grad_mean - (x - mean) * scale * dot) * scale;
            }
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn check(centred: bool) {
        let norm = Norm { centred, eps: 1e-6 };
        let x = Var::randn(0.3_f32, 2_f32, (17, 48), &Device::Cpu).unwrap();
        let ours = normalise(&x, norm).unwrap();
        let mean = x.mean_keepdim(D::Minus1).unwrap();
        let centre = if centred { x.broadcast_sub(&mean).unwrap() } else { x.as_tensor().clone() };
        let variance = centre.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
        let theirs = centre.broadcast_div(&(variance + 1e-6).unwrap().sqrt().unwrap()).unwrap();
        let probe = Tensor::randn(0_f32, 1_f32, (17, 48), &Device::Cpu).unwrap();
        let grad = |y: &Tensor| {
            let loss = (y * &probe).unwrap().sum_all().unwrap();
            loss.backward().unwrap().get(&x).unwrap().clone()
        };
        for (a, b) in [(ours.clone(), theirs.clone()), (grad(&ours), grad(&theirs))] {
            let diff =
                (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(diff < 5e-6, "{diff}");
        }
    }

    #[test]
    fn rms_norm_agrees_with_primitive_operations() {
        check(false);
    }

    #[test]
    fn layer_norm_agrees_with_primitive_operations() {
        check(true);
    }
}
