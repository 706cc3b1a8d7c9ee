use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, bail};

use super::rows::f32_slice;

/// `x · weightᵀ + (x · aᵀ) · bᵀ`: a frozen linear layer with a LoRA pair beside it (Hu et al.,
/// arXiv 2106.09685).
///
/// `x` `[rows, in]`, `weight` `[out, in]`, `a` `[rank, in]`, `b` `[out, rank]` with LoRA's factor in
/// it; all f32. Differentiable in `x`, `a` and `b`; neither a merged weight nor its gradient ever
/// exists, and on the CPU nothing is kept for the backward pass but the arguments.
pub fn low_rank_linear(x: &Tensor, weight: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let weight = weight.detach();
    if !x.device().is_cpu() {
        return x.matmul(&weight.t()?)? + x.matmul(&a.t()?)?.matmul(&b.t()?)?;
    }
    x.contiguous()?.apply_op3(&a.contiguous()?, &b.contiguous()?, LowRankLinear { weight })
}

struct LowRankLinear {
    weight: Tensor,
}

// === impl LowRankLinear ===

impl CustomOp3 for LowRankLinear {
    fn name(&self) -> &'static str {
        "low-rank-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = tensor(x, x_layout)?;
        let down = x.matmul(&tensor(a, a_layout)?.t()?)?;
        let y = (x.matmul(&self.weight.t()?)? + down.matmul(&tensor(b, b_layout)?.t()?)?)?;
        let shape = y.shape().clone();
        Ok((CpuStorage::F32(y.flatten_all()?.to_vec1()?), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [x, a, b, grad] = [x, a, b, grad].map(|t| t.detach().contiguous());
        let (x, a, b, grad) = (x?, a?, b?, grad?);
        let through = grad.matmul(&b)?;
        let dx = (grad.matmul(&self.weight)? + through.matmul(&a)?)?;
        let da = through.t()?.matmul(&x)?;
        let db = grad.t()?.matmul(&x.matmul(&a.t()?)?)?;
        Ok((Some(dx), Some(da), Some(db)))
    }
}

fn tensor(storage: &CpuStorage, layout: &Layout) -> Result<Tensor> {
    if layout.dims().len() != 2 {
        bail!("{:?} is no matrix of {:?}", layout.shape(), DType::F32);
    }
    Tensor::from_slice(f32_slice(storage, layout)?, layout.shape(), &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    #[test]
    fn agrees_with_merged_weights_forward_and_backward() {
        let var = |shape| Var::randn(0_f32, 1_f32, shape, &Device::Cpu).unwrap();
        let (x, a, b) = (var((7, 5)), var((3, 5)), var((4, 3)));
        let weight = Tensor::randn(0_f32, 1_f32, (4, 5), &Device::Cpu).unwrap();
        let probe = Tensor::randn(0_f32, 1_f32, (7, 4), &Device::Cpu).unwrap();
        let ours = low_rank_linear(&x, &weight, &a, &b).unwrap();
        let merged = (&weight + b.matmul(&a).unwrap()).unwrap();
        let theirs = x.matmul(&merged.t().unwrap()).unwrap();
        let close = |one: &Tensor, two: &Tensor| {
            let off = (one - two).unwrap().abs().unwrap().max_all().unwrap();
            assert!(off.to_scalar::<f32>().unwrap() < 1e-5);
        };
        close(&ours, &theirs);
        let grads = |y: &Tensor| {
            let store = (y * &probe).unwrap().sum_all().unwrap().backward().unwrap();
            [&x, &a, &b].map(|v| store.get(v).unwrap().clone())
        };
        for (one, two) in grads(&ours).iter().zip(&grads(&theirs)) {
            close(one, two);
        }
    }
}
