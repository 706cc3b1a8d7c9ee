use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor, bail};

use super::RowKeys;
use super::attention_softmax::{AttentionSoftmax, AttentionSoftmaxGrad};
use super::rows::f32_slice;

/// How packed rows split into heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads; a multiple of `key_value`.
    pub query: usize,
    /// Key and value heads.
    pub key_value: usize,
    /// Width of a head.
    pub dim: usize,
}

/// Query rows that see the same keys: `shared` rows, then `own` rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Packed query rows.
    pub queries: Range<usize>,
    /// Packed key rows that come first.
    pub shared: Range<usize>,
    /// Packed key rows that come next.
    pub own: Range<usize>,
    /// What each query row sees of the two, counted from the first shared row.
    pub visible: Arc<[RowKeys]>,
}

/// Attention over packed rows, as one operation on the CPU, so that neither the forward nor the
/// backward pass copies whole tensors for each segment.
///
/// `query` is `[rows, query heads · dim]`, `key` and `value` are `[rows, key_value heads · dim]`,
/// all contiguous f32 on the CPU, keys and queries rotated. Gives `[rows, query heads · dim]`; rows
/// that no segment queries are 0. Differentiable in all three.
pub fn packed_attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: HeadShape,
    segments: &Arc<[Segment]>,
) -> Result<Tensor> {
    let op = PackedAttention { heads, segments: Arc::clone(segments), weights: Mutex::default() };
    query.contiguous()?.apply_op3(&key.contiguous()?, &value.contiguous()?, op)
}

struct PackedAttention {
    heads: HeadShape,
    segments: Arc<[Segment]>,
    /// Each segment's softmax, kept for the backward pass.
    weights: Mutex<Vec<Tensor>>,
}

/// Rows in memory, `[rows, heads · dim]`.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: &'a [f32],
    heads: usize,
    dim: usize,
}

// === impl Segment ===

impl Segment {
    /// Rows that see each other and nothing else.
    pub fn closed(rows: Range<usize>) -> Self {
        let all = rows.len() as u32;
        let visible = [RowKeys { shared: all, own_start: all, own_end: all }].into();
        let end = rows.end;
        Self { queries: rows.clone(), shared: rows, own: end..end, visible }
    }
}

// === impl HeadShape ===

impl HeadShape {
    /// Numbers that scores are multiplied by: `1/√dim`.
    fn scale(self) -> f32 {
        (1.0 / (self.dim as f64).sqrt()) as f32
    }
}

// === impl Rows ===

impl<'a> Rows<'a> {
    /// `stacked · key_value` heads: those that share a key head become rows of one matrix,
    /// `[key_value, stacked · rows, dim]`.
    fn gather(self, ranges: &[Range<usize>], key_value: usize) -> Result<Tensor> {
        let width = self.heads * self.dim;
        let rows: usize = ranges.iter().map(ExactSizeIterator::len).sum();
        let mut out = Vec::with_capacity(rows * width);
        for head in 0..self.heads {
            for row in ranges.iter().cloned().flatten() {
                let start = row * width + head * self.dim;
                out.extend_from_slice(&self.values[start..start + self.dim]);
            }
        }
        Tensor::from_vec(out, (key_value, self.heads / key_value * rows, self.dim), &Device::Cpu)
    }

    fn new(values: &'a [f32], heads: usize, dim: usize) -> Self {
        Self { values, heads, dim }
    }
}

/// Adds `part`, laid out as [`Rows::gather`] gives it, onto its rows of `out`.
fn scatter(
    part: &Tensor,
    ranges: &[Range<usize>],
    heads: usize,
    dim: usize,
    out: &mut [f32],
) -> Result<()> {
    let part = part.contiguous()?;
    let (storage, layout) = part.storage_and_layout();
    let candle_core::Storage::Cpu(storage) = &*storage else { bail!("not on the CPU") };
    let mut rest = f32_slice(storage, layout)?;
    for head in 0..heads {
        for row in ranges.iter().cloned().flatten() {
            let (own, after) = rest.split_at(dim);
            let start = (row * heads + head) * dim;
            for (out, &x) in out[start..start + dim].iter_mut().zip(own) {
                *out += x;
            }
            rest = after;
        }
    }
    Ok(())
}

// === impl PackedAttention ===

impl PackedAttention {
    fn one(
        &self,
        segment: &Segment,
        q: Rows<'_>,
        k: Rows<'_>,
        v: Rows<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let keys = [segment.shared.clone(), segment.own.clone()];
        let groups = self.heads.key_value;
        let query = q.gather(std::slice::from_ref(&segment.queries), groups)?;
        let scores = query.matmul(&k.gather(&keys, groups)?.t()?)?;
        let softmax = AttentionSoftmax::new(self.heads.scale(), Arc::clone(&segment.visible));
        let weights = scores.apply_op1_no_bwd(&softmax)?;
        let mixed = weights.matmul(&v.gather(&keys, groups)?)?;
        Ok((weights, mixed))
    }

    fn rows<'a>(&self, q: &'a [f32], k: &'a [f32], v: &'a [f32]) -> (Rows<'a>, Rows<'a>, Rows<'a>) {
        let HeadShape { query, key_value, dim } = self.heads;
        (Rows::new(q, query, dim), Rows::new(k, key_value, dim), Rows::new(v, key_value, dim))
    }
}

impl CustomOp3 for PackedAttention {
    fn name(&self) -> &'static str {
        "packed-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let q = f32_slice(q, q_layout)?;
        let (q, k, v) = self.rows(q, f32_slice(k, k_layout)?, f32_slice(v, v_layout)?);
        let HeadShape { query, dim, .. } = self.heads;
        let mut out = vec![0.0; q.values.len()];
        let mut kept = Vec::with_capacity(self.segments.len());
        for segment in &*self.segments {
            let (weights, mixed) = self.one(segment, q, k, v)?;
            scatter(&mixed, std::slice::from_ref(&segment.queries), query, dim, &mut out)?;
            kept.push(weights);
        }
        *self.weights.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let HeadShape { query, key_value, dim } = self.heads;
        let shapes = (q.shape().clone(), k.shape().clone());
        let [q, k, v, grad] = [q, k, v, grad].map(|t| t.contiguous()?.flatten_all()?.to_vec1());
        let (q, k, v, grad): (Vec<f32>, Vec<f32>, Vec<f32>, Vec<f32>) = (q?, k?, v?, grad?);
        let g = Rows::new(&grad, query, dim);
        let (q, k, v) = self.rows(&q, &k, &v);
        let mut dq = vec![0.0; q.values.len()];
        let (mut dk, mut dv) = (vec![0.0; k.values.len()], vec![0.0; v.values.len()]);
        let softmax_grad = AttentionSoftmaxGrad::new(self.heads.scale());
        let weights =
            std::mem::take(&mut *self.weights.lock().unwrap_or_else(PoisonError::into_inner));
        for (i, segment) in self.segments.iter().enumerate() {
            let rows = std::slice::from_ref(&segment.queries);
            let keys = [segment.shared.clone(), segment.own.clone()];
            let weights = match weights.get(i) {
                Some(weights) => weights.clone(),
                None => self.one(segment, q, k, v)?.0,
            };
            let g = g.gather(rows, key_value)?;
            let d_weights = g.matmul(&v.gather(&keys, key_value)?.t()?)?;
            let d_scores = weights.apply_op2_no_bwd(&d_weights, &softmax_grad)?;
            scatter(&d_scores.matmul(&k.gather(&keys, key_value)?)?, rows, query, dim, &mut dq)?;
            let d_key = d_scores.t()?.matmul(&q.gather(rows, key_value)?)?;
            scatter(&d_key, &keys, key_value, dim, &mut dk)?;
            scatter(&weights.t()?.matmul(&g)?, &keys, key_value, dim, &mut dv)?;
        }
        let cpu = &Device::Cpu;
        Ok((
            Some(Tensor::from_vec(dq, shapes.0, cpu)?),
            Some(Tensor::from_vec(dk, &shapes.1, cpu)?),
            Some(Tensor::from_vec(dv, &shapes.1, cpu)?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{D, Var};

    use super::*;

    const HEADS: HeadShape = HeadShape { query: 4, key_value: 2, dim: 8 };

    /// A prefix of 3 rows and two responses of 2 and 1 behind it; then a prefix of 2 without any.
    fn segments() -> Arc<[Segment]> {
        let visible = [(3, 4), (3, 5), (5, 6)].map(|(own_start, own_end)| RowKeys {
            shared: 3,
            own_start,
            own_end,
        });
        let tile = Segment { queries: 5..8, shared: 0..3, own: 5..8, visible: visible.into() };
        [Segment::closed(0..3), Segment::closed(3..5), tile].into()
    }

    /// Which of the 8 rows each row sees.
    const SEES: [&[usize]; 8] = [
        &[0, 1, 2],
        &[0, 1, 2],
        &[0, 1, 2],
        &[3, 4],
        &[3, 4],
        &[0, 1, 2, 5],
        &[0, 1, 2, 5, 6],
        &[0, 1, 2, 7],
    ];

    /// The same by a dense mask and candle's own operations.
    fn dense(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let per_head = |x: &Tensor, heads: usize| {
            x.reshape((8, heads, HEADS.dim))?.transpose(0, 1)?.contiguous()
        };
        let repeat = |x: Tensor| {
            let (h, r, d) = x.dims3()?;
            x.unsqueeze(1)?.expand((h, 2, r, d))?.reshape((2 * h, r, d))
        };
        let mut mask = vec![f32::NEG_INFINITY; 64];
        for (row, sees) in SEES.iter().enumerate() {
            sees.iter().for_each(|key| mask[row * 8 + key] = 0.0);
        }
        let mask = Tensor::from_vec(mask, (8, 8), &Device::Cpu)?;
        let (q, k, v) = (per_head(q, 4)?, repeat(per_head(k, 2)?)?, repeat(per_head(v, 2)?)?);
        let scores = (q.matmul(&k.t()?)? / 8_f64.sqrt())?.broadcast_add(&mask)?;
        let mixed = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&v)?;
        mixed.transpose(0, 1)?.contiguous()?.reshape((8, 32))
    }

    #[test]
    fn agrees_with_dense_masked_attention_forward_and_backward() {
        let var = |width| Var::randn(0_f32, 1.5_f32, (8, width), &Device::Cpu).unwrap();
        let (q, k, v) = (var(32), var(16), var(16));
        let probe = Tensor::randn(0_f32, 1_f32, (8, 32), &Device::Cpu).unwrap();
        let ours = packed_attention(&q, &k, &v, HEADS, &segments()).unwrap();
        let theirs = dense(&q, &k, &v).unwrap();
        let grads = |y: &Tensor| {
            let store = (y * &probe).unwrap().sum_all().unwrap().backward().unwrap();
            [&q, &k, &v].map(|x| store.get(x).unwrap().clone())
        };
        let close = |a: &Tensor, b: &Tensor| {
            let diff = (a - b).unwrap().abs().unwrap().max_all().unwrap();
            let diff = diff.to_scalar::<f32>().unwrap();
            assert!(diff < 2e-6, "{diff}");
        };
        close(&ours, &theirs);
        for (a, b) in grads(&ours).iter().zip(&grads(&theirs)) {
            close(a, b);
        }
    }
}
