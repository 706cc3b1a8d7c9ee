use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, bail};

use super::rows::f32_slice;

/// What of a LoRA pair's input is left out while the pair is trained (PEFT's `lora_dropout`): each
/// value with this chance, and the others are divided by what is left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// In 0..1.
    pub chance: f32,
    /// Equal seeds leave out the same places.
    pub seed: u32,
}

/// `x · weightᵀ + (x · aᵀ) · bᵀ`: a frozen linear layer with a LoRA pair beside it (Hu et al.,
/// arXiv 2106.09685), whose own input may have places left out.
///
/// `x` `[rows, in]`, `weight` `[out, in]`, `a` `[rank, in]`, `b` `[out, rank]` with LoRA's factor in
/// it; all f32. Differentiable in `x`, `a` and `b`; neither a merged weight nor its gradient ever
/// exists, and on the CPU nothing is kept for the backward pass but the arguments.
pub fn low_rank_linear(
    x: &Tensor,
    weight: &Tensor,
    a: &Tensor,
    b: &Tensor,
    dropout: Option<Dropout>,
) -> Result<Tensor> {
    let weight = weight.detach();
    if !x.device().is_cpu() {
        let own = match dropout {
            Some(dropout) => (x * dropout.mask(x)?.to_device(x.device())?)?,
            None => x.clone(),
        };
        return x.matmul(&weight.t()?)? + own.matmul(&a.t()?)?.matmul(&b.t()?)?;
    }
    let op = LowRankLinear { weight, dropout };
    x.contiguous()?.apply_op3(&a.contiguous()?, &b.contiguous()?, op)
}

struct LowRankLinear {
    weight: Tensor,
    dropout: Option<Dropout>,
}

// === impl Dropout ===

impl Dropout {
    /// The factor of each value of a matrix: 0, or what makes up for those that are left out.
    fn mask(self, x: &Tensor) -> Result<Tensor> {
        let kept = 1.0 / (1.0 - self.chance);
        let limit = (f64::from(self.chance) * 2_f64.powi(32)) as u64;
        let start = u64::from(self.seed) << 32;
        let factors: Vec<f32> = (0..x.elem_count() as u64)
            .map(|at| if scrambled(start ^ at) >> 32 < limit { 0.0 } else { kept })
            .collect();
        Tensor::from_vec(factors, x.shape(), &Device::Cpu)
    }
}

/// SplitMix64's output function (Steele, Lea and Flood, 2014): neighbours become unlike.
const fn scrambled(at: u64) -> u64 {
    let z = at.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

// === impl LowRankLinear ===

impl LowRankLinear {
    /// The pair's input.
    fn own(&self, x: &Tensor) -> Result<Tensor> {
        self.dropout.map_or_else(|| Ok(x.clone()), |dropout| x * dropout.mask(x)?)
    }
}

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
        let down = self.own(&x)?.matmul(&tensor(a, a_layout)?.t()?)?;
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
        let mask = self.dropout.map(|dropout| dropout.mask(&x)).transpose()?;
        let masked = |t: Tensor| mask.as_ref().map_or_else(|| Ok(t.clone()), |mask| &t * mask);
        let own = masked(x)?;
        let through = grad.matmul(&b)?;
        let dx = (grad.matmul(&self.weight)? + masked(through.matmul(&a)?)?)?;
        let da = through.t()?.matmul(&own)?;
        let db = grad.t()?.matmul(&own.matmul(&a.t()?)?)?;
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

    fn var(shape: (usize, usize)) -> Var {
        Var::randn(0_f32, 1_f32, shape, &Device::Cpu).unwrap()
    }

    fn assert_close(one: &Tensor, two: &Tensor) {
        let off = (one - two).unwrap().abs().unwrap().max_all().unwrap();
        assert!(off.to_scalar::<f32>().unwrap() < 1e-5);
    }

    /// Gradients of two results by the same variables agree.
    fn assert_same_gradients(ours: &Tensor, theirs: &Tensor, vars: [&Var; 3]) {
        let probe = Tensor::randn(0_f32, 1_f32, ours.shape(), &Device::Cpu).unwrap();
        let grads = |y: &Tensor| {
            let store = (y * &probe).unwrap().sum_all().unwrap().backward().unwrap();
            vars.map(|v| store.get(v).unwrap().clone())
        };
        for (one, two) in grads(ours).iter().zip(&grads(theirs)) {
            assert_close(one, two);
        }
    }

    #[test]
    fn agrees_with_merged_weights_forward_and_backward() {
        let (x, a, b) = (var((7, 5)), var((3, 5)), var((4, 3)));
        let weight = Tensor::randn(0_f32, 1_f32, (4, 5), &Device::Cpu).unwrap();
        let ours = low_rank_linear(&x, &weight, &a, &b, None).unwrap();
        let merged = (&weight + b.matmul(&a).unwrap()).unwrap();
        let theirs = x.matmul(&merged.t().unwrap()).unwrap();
        assert_close(&ours, &theirs);
        assert_same_gradients(&ours, &theirs, [&x, &a, &b]);
    }

    #[test]
    fn what_is_left_out_is_left_out_forward_and_backward() {
        let (x, a, b) = (var((7, 5)), var((3, 5)), var((4, 3)));
        let weight = Tensor::randn(0_f32, 1_f32, (4, 5), &Device::Cpu).unwrap();
        let dropout = Dropout { chance: 0.4, seed: 3 };
        let ours = low_rank_linear(&x, &weight, &a, &b, Some(dropout)).unwrap();
        let own = (x.as_tensor() * dropout.mask(&x).unwrap()).unwrap();
        let low = own.matmul(&a.t().unwrap()).unwrap().matmul(&b.t().unwrap()).unwrap();
        let theirs = (x.matmul(&weight.t().unwrap()).unwrap() + low).unwrap();
        assert_close(&ours, &theirs);
        assert_same_gradients(&ours, &theirs, [&x, &a, &b]);
    }

    #[test]
    fn a_mask_leaves_out_its_share_and_keeps_the_mean() {
        let x = Tensor::zeros((200, 100), DType::F32, &Device::Cpu).unwrap();
        let values = |seed| {
            let mask = Dropout { chance: 0.1, seed }.mask(&x).unwrap();
            mask.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let mask = values(7);
        let out = mask.iter().filter(|&&factor| factor == 0.0).count() as f64 / 20_000.0;
        assert!((0.09..0.11).contains(&out), "{out}");
        assert!(mask.iter().all(|&factor| factor == 0.0 || (factor - 1.0 / 0.9).abs() < 1e-6));
        assert_eq!(mask, values(7));
        assert_ne!(mask, values(8));
    }
}
