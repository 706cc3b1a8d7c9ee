use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, D, Device, Layout, Result, Shape, Storage, Tensor, bail,
};

use super::rows::{f32_slice, for_rows, lane_dot, lane_sum, map_rows};

/// Gemma's RMS norm: `x / √(mean(x²) + eps) · (1 + weight)`, all in f32.
///
/// `x` is `[.., hidden]`, `weight` is `[hidden]`. Differentiable in both.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let gain = (weight + 1.0)?;
    let norm = Norm { centred: false, eps };
    if x.device().is_cpu() {
        return x.contiguous()?.apply_op2(&gain, norm);
    }
    primitive(x, norm)?.broadcast_mul(&gain)
}

/// Layer norm over the last dimension, in f32: `(x - mean) / √(var + eps) · weight + bias`.
///
/// `x` is `[.., hidden]`, `weight` and `bias` are `[hidden]`. Differentiable in all three.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let norm = Norm { centred: true, eps };
    if x.device().is_cpu() {
        return x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, norm);
    }
    primitive(x, norm)?.broadcast_mul(weight)?.broadcast_add(bias)
}

/// Normalisation of each row; gain and bias come beside it.
#[derive(Clone, Copy)]
struct Norm {
    /// Whether the mean is taken off first.
    centred: bool,
    eps: f64,
}

/// The gradient of the rows.
struct NormGrad(Norm);

/// Normalised rows without gain and bias, by candle's own operations.
fn primitive(x: &Tensor, norm: Norm) -> Result<Tensor> {
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

    fn forward(
        self,
        x: &CpuStorage,
        layout: &Layout,
        gain: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<(CpuStorage, Shape)> {
        let width = gain.len();
        let out = map_rows(f32_slice(x, layout)?, width, |_, row, out| {
            let (mean, scale) = self.statistics(row);
            for ((out, &x), &gain) in out.iter_mut().zip(row).zip(gain) {
                *out = (x - mean) * scale * gain;
            }
            for (out, &bias) in out.iter_mut().zip(bias.unwrap_or(&[])) {
                *out += bias;
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    /// Gradients of gain and bias: over rows, `Σ g·y` with `y` the normalised row, and `Σ g`.
    fn affine_grads(self, x: &Tensor, grad: &Tensor, width: usize) -> Result<(Tensor, Tensor)> {
        let (mut gain, mut bias) = (vec![0.0; width], vec![0.0; width]);
        with_slice(x, |x| {
            with_slice(grad, |grad| {
                for (row, grad) in x.chunks_exact(width).zip(grad.chunks_exact(width)) {
                    let (mean, scale) = self.statistics(row);
                    for i in 0..width {
                        gain[i] += grad[i] * (row[i] - mean) * scale;
                        bias[i] += grad[i];
                    }
                }
                Ok(())
            })
        })?;
        let cpu = &Device::Cpu;
        Ok((Tensor::from_vec(gain, width, cpu)?, Tensor::from_vec(bias, width, cpu)?))
    }

    fn row_grad(self, x: &Tensor, gain: &Tensor, grad: &Tensor) -> Result<Tensor> {
        x.apply_op3_no_bwd(gain, grad, &NormGrad(self))
    }
}

/// Calls `read` with a tensor's elements.
fn with_slice(tensor: &Tensor, read: impl FnOnce(&[f32]) -> Result<()>) -> Result<()> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("not on the CPU") };
    read(f32_slice(storage, layout)?)
}

impl CustomOp2 for Norm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gain: &CpuStorage,
        gain_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward(x, x_layout, f32_slice(gain, gain_layout)?, None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        gain: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (x, grad) = (x.contiguous()?, grad.contiguous()?);
        let (d_gain, _) = self.affine_grads(&x, &grad, gain.elem_count())?;
        Ok((Some(self.row_grad(&x, gain, &grad)?), Some(d_gain)))
    }
}

impl CustomOp3 for Norm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gain: &CpuStorage,
        gain_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gain, bias) = (f32_slice(gain, gain_layout)?, f32_slice(bias, bias_layout)?);
        self.forward(x, x_layout, gain, Some(bias))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gain: &Tensor,
        _bias: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x, grad) = (x.contiguous()?, grad.contiguous()?);
        let (d_gain, d_bias) = self.affine_grads(&x, &grad, gain.elem_count())?;
        let gain = gain.contiguous()?;
        Ok((Some(self.row_grad(&x, &gain, &grad)?), Some(d_gain), Some(d_bias)))
    }
}

// === impl NormGrad ===

impl CustomOp3 for NormGrad {
    fn name(&self) -> &'static str {
        "row-norm-grad"
    }

    /// With `y` the normalised row and `h = g·gain`:
    /// `dx = (h - mean(h)·[centred] - y·mean(h·y)) · scale`.
    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gain: &CpuStorage,
        gain_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, gain) = (f32_slice(x, x_layout)?, f32_slice(gain, gain_layout)?);
        let width = gain.len();
        let mut out = f32_slice(grad, grad_layout)?.to_vec();
        for_rows(&mut out, width, |row, grad| {
            let x = &x[row * width..(row + 1) * width];
            let (mean, scale) = self.0.statistics(x);
            for (grad, &gain) in grad.iter_mut().zip(gain) {
                *grad *= gain;
            }
            let n = width as f32;
            let sum = lane_sum(grad, |g| g);
            let grad_mean = if self.0.centred { sum / n } else { 0.0 };
            // Σ h·(x - mean), without a row of its own for x - mean.
            let dot = (lane_dot(grad, x) - sum * mean) * scale / n;
            for (grad, &x) in grad.iter_mut().zip(x) {
                *grad = (*grad - grad_mean - (x - mean) * scale * dot) * scale;
            }
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    fn var(shape: &[usize], mean: f32) -> Var {
        Var::randn(mean, 2_f32, shape, &Device::Cpu).unwrap()
    }

    /// Both results, and both gradients of each of `wanted`.
    fn check(ours: &Tensor, theirs: &Tensor, wanted: &[&Var]) {
        let probe = ours.randn_like(0.0, 1.0).unwrap();
        let grads = |y: &Tensor| {
            let store = (y * &probe).unwrap().sum_all().unwrap().backward().unwrap();
            wanted.iter().map(|x| store.get(x).unwrap().clone()).collect::<Vec<_>>()
        };
        let (mut a, mut b) = (grads(ours), grads(theirs));
        a.push(ours.clone());
        b.push(theirs.clone());
        for (a, b) in a.iter().zip(&b) {
            let largest = |t: &Tensor| {
                let t = t.abs().unwrap().max_all().unwrap();
                t.to_scalar::<f32>().unwrap()
            };
            let diff = largest(&(a - b).unwrap());
            assert!(diff < 3e-6 * largest(b).max(1.0), "{diff}");
        }
    }

    #[test]
    fn rms_norm_agrees_with_primitive_operations() {
        let (x, weight) = (var(&[17, 48], 0.3), var(&[48], 0.0));
        let theirs = primitive(&x, Norm { centred: false, eps: 1e-6 }).unwrap();
        let theirs = theirs.broadcast_mul(&(weight.as_tensor() + 1.0).unwrap()).unwrap();
        check(&rms_norm(&x, &weight, 1e-6).unwrap(), &theirs, &[&x, &weight]);
    }

    #[test]
    fn layer_norm_agrees_with_primitive_operations() {
        let (x, weight, bias) = (var(&[17, 48], 0.3), var(&[48], 1.0), var(&[48], 0.0));
        let theirs = primitive(&x, Norm { centred: true, eps: 1e-6 }).unwrap();
        let theirs = theirs.broadcast_mul(&weight).unwrap().broadcast_add(&bias).unwrap();
        check(&layer_norm(&x, &weight, &bias, 1e-6).unwrap(), &theirs, &[&x, &weight, &bias]);
    }
}
