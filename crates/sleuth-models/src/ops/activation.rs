use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::elementary::{erf, exp, tanh};
use super::rows::{f32_slice, for_rows, map_rows};

/// `√(2/π)`.
const SCALE: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;
/// The kernels are element-wise; a "row" is only a unit of work.
const BLOCK: usize = 1024;

/// `½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`, the tanh form of GELU that SigLIP and Gemma use.
///
/// Any shape, f32. Differentiable.
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() { x.contiguous()?.apply_op1(GeluTanh) } else { x.gelu() }
}

/// `gelu_tanh(gate) · up`, one pass each way.
///
/// Any shape, equal for both, f32. Differentiable in both.
pub fn gelu_tanh_times(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.device().is_cpu() {
        gate.contiguous()?.apply_op2(&up.contiguous()?, GeluTanhTimes)
    } else {
        gate.gelu()? * up
    }
}

struct GeluTanh;

struct GeluTanhTimes;

/// `grad · up · gelu'(gate)`.
struct GateGrad;

/// `grad · gelu'(x)`.
struct GeluTanhGrad;

// === impl GeluTanh ===

impl CustomOp1 for GeluTanh {
    fn name(&self) -> &'static str {
        "gelu-tanh"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = f32_slice(storage, layout)?;
        let (body, tail) = x.split_at(x.len() - x.len() % BLOCK);
        let mut out = map_rows(body, BLOCK, |_, x, out| gelu_row(x, out));
        out.extend(map_rows(tail, tail.len(), |_, x, out| gelu_row(x, out)));
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(arg.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &GeluTanhGrad)?))
    }
}

#[inline(always)]
fn gelu_row(x: &[f32], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = gelu(x);
    }
}

/// [`gelu_tanh`] of one number.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(SCALE * (x + CUBIC * x * x * x)))
}

/// `x · Φ(x)`: GELU by the error function.
#[inline(always)]
pub(crate) fn gelu_erf(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `x · sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

// === impl GeluTanhTimes ===

impl CustomOp2 for GeluTanhTimes {
    fn name(&self) -> &'static str {
        "gelu-tanh-times"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let gate = f32_slice(gate, gate_layout)?;
        let mut out = f32_slice(up, up_layout)?.to_vec();
        for_blocks(&mut out, |start, up| {
            for (up, &x) in up.iter_mut().zip(&gate[start..]) {
                *up *= gelu(x);
            }
        });
        Ok((CpuStorage::F32(out), gate_layout.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (gate, up, grad) = (gate.contiguous()?, up.contiguous()?, grad.contiguous()?);
        let d_gate = gate.apply_op3_no_bwd(&up, &grad, &GateGrad)?;
        // d_up = grad · gelu(gate): the forward pass with `grad` in place of `up`.
        Ok((Some(d_gate), Some(gate.apply_op2_no_bwd(&grad, &Self)?)))
    }
}

// === impl GateGrad ===

impl CustomOp3 for GateGrad {
    fn name(&self) -> &'static str {
        "gelu-tanh-times-grad"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (f32_slice(gate, gate_layout)?, f32_slice(up, up_layout)?);
        let mut out = f32_slice(grad, grad_layout)?.to_vec();
        for_blocks(&mut out, |start, grad| {
            grad_row(&gate[start..start + grad.len()], grad);
            for (grad, &up) in grad.iter_mut().zip(&up[start..]) {
                *grad *= up;
            }
        });
        Ok((CpuStorage::F32(out), gate_layout.shape().clone()))
    }
}

/// Calls `kernel(first element, elements)` for blocks of `values`.
fn for_blocks(values: &mut [f32], kernel: impl Fn(usize, &mut [f32]) + Sync) {
    let whole = values.len() - values.len() % BLOCK;
    let (body, tail) = values.split_at_mut(whole);
    for_rows(body, BLOCK, |row, out| kernel(row * BLOCK, out));
    let width = tail.len();
    for_rows(tail, width, |_, out| kernel(whole, out));
}

// === impl GeluTanhGrad ===

impl CustomOp2 for GeluTanhGrad {
    fn name(&self) -> &'static str {
        "gelu-tanh-grad"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = f32_slice(x, x_layout)?;
        let mut out = f32_slice(grad, grad_layout)?.to_vec();
        for_blocks(&mut out, |start, grad| grad_row(&x[start..start + grad.len()], grad));
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

#[inline(always)]
fn grad_row(x: &[f32], grad: &mut [f32]) {
    for (grad, &x) in grad.iter_mut().zip(x) {
        let t = tanh(SCALE * (x + CUBIC * x * x * x));
        let inner = SCALE * (1.0 + 3.0 * CUBIC * x * x);
        *grad *= 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner;
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn agrees_with_candle_forward_and_backward() {
        let x = Var::randn(0_f32, 2_f32, (37, 61), &Device::Cpu).unwrap();
        let (ours, theirs) = (gelu_tanh(&x).unwrap(), x.gelu().unwrap());
        assert!(max_abs_diff(&ours, &theirs) < 1e-6);
        let grad = |y: &Tensor| {
            let loss = (y * y).unwrap().sum_all().unwrap();
            loss.backward().unwrap().get(&x).unwrap().clone()
        };
        let diff = max_abs_diff(&grad(&ours), &grad(&theirs));
        assert!(diff < 2e-5, "{diff}");
    }

    #[test]
    fn the_gated_form_agrees_with_candle_forward_and_backward() {
        let var = || Var::randn(0_f32, 2_f32, (37, 61), &Device::Cpu).unwrap();
        let (gate, up) = (var(), var());
        let ours = gelu_tanh_times(&gate, &up).unwrap();
        let theirs = (gate.gelu().unwrap() * up.as_tensor()).unwrap();
        assert!(max_abs_diff(&ours, &theirs) < 2e-6);
        let grads = |y: &Tensor| {
            let store = (y * y).unwrap().sum_all().unwrap().backward().unwrap();
            [&gate, &up].map(|x| store.get(x).unwrap().clone())
        };
        for (a, b) in grads(&ours).iter().zip(&grads(&theirs)) {
            let scale = b.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            let diff = max_abs_diff(a, b);
            assert!(diff < 1e-5 * scale, "{diff} of {scale}");
        }
    }

    fn max_abs_diff(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }
}
