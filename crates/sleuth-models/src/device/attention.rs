use candle_core::{D, DType, Result, Tensor};

use crate::ops::HeadShape;
use crate::paligemma::KeyValues;

/// Attention of consecutive packed rows over a shared prefix and keys of their own.
#[derive(Debug)]
pub(super) struct Attention<'a> {
    pub(super) heads: HeadShape,
    /// Keys that every row sees; none for rows that see only their own.
    pub(super) shared: Option<&'a KeyValues>,
    pub(super) own: Option<Own<'a>>,
    /// Bytes that a block of scores may take.
    pub(super) score_bytes: usize,
}

/// Keys that not every row sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own<'a> {
    pub(super) kv: &'a KeyValues,
    /// `[rows, own keys]`, f32: 0 where a row sees a key, else -∞.
    pub(super) mask: &'a Tensor,
}

/// Scores over some keys, on their way to a softmax over all of them.
struct Part {
    /// `[kv_heads, stacked rows, keys]`.
    scores: Tensor,
    value: Tensor,
}

// === impl Attention ===

impl Attention<'_> {
    /// `query` `[rows, heads, head_dim]`, rotated, f32, to `[rows, heads · head_dim]`.
    ///
    /// The query heads that share a KV head are stacked into rows of one product.
    pub(super) fn run(&self, query: &Tensor) -> Result<Tensor> {
        let rows = query.dim(0)?;
        let most = self.rows_at_a_time()?;
        if rows <= most {
            return self.block(query, 0);
        }
        let starts = (0..rows).step_by(most);
        let blocks = starts
            .map(|start| self.block(&query.narrow(0, start, most.min(rows - start))?, start))
            .collect::<Result<Vec<_>>>()?;
        Tensor::cat(&blocks, 0)
    }

    fn rows_at_a_time(&self) -> Result<usize> {
        let mut keys = 0;
        for kv in self.shared.into_iter().chain(self.own.map(|own| own.kv)) {
            keys += kv.key.dim(1)?;
        }
        let row = self.heads.query * keys.max(1) * size_of::<f32>();
        Ok((self.score_bytes / row).max(1))
    }

    /// The rows from `start` on.
    fn block(&self, query: &Tensor, start: usize) -> Result<Tensor> {
        let HeadShape { query: heads, key_value, dim } = self.heads;
        let rows = query.dim(0)?;
        let stacked = (query.transpose(0, 1)?.contiguous()? * (1.0 / (dim as f64).sqrt()))?
            .reshape((key_value, heads / key_value * rows, dim))?;
        let mut parts = Vec::with_capacity(2);
        if let Some(shared) = self.shared {
            parts.push(Part::new(&stacked, shared)?);
        }
        if let Some(own) = self.own {
            parts.push(Part::new(&stacked, own.kv)?.masked(&own.mask.narrow(0, start, rows)?)?);
        }
        softmax(&parts)?
            .reshape((heads, rows, dim))?
            .transpose(0, 1)?
            .contiguous()?
            .reshape((rows, heads * dim))
    }
}

impl Part {
    fn new(stacked: &Tensor, kv: &KeyValues) -> Result<Self> {
        let key = kv.key.to_dtype(DType::F32)?;
        Ok(Self { scores: stacked.matmul(&key.t()?)?, value: kv.value.to_dtype(DType::F32)? })
    }

    fn masked(self, mask: &Tensor) -> Result<Self> {
        let (heads, stacked, keys) = self.scores.dims3()?;
        let rows = mask.dim(0)?;
        let scores = self
            .scores
            .reshape((heads, stacked / rows, rows, keys))?
            .broadcast_add(mask)?
            .reshape((heads, stacked, keys))?;
        Ok(Self { scores, ..self })
    }
}

/// One softmax over the keys of all parts, times their values: `[kv_heads, stacked rows, head_dim]`.
fn softmax(parts: &[Part]) -> Result<Tensor> {
    let mut max: Option<Tensor> = None;
    for part in parts {
        let own = part.scores.max_keepdim(D::Minus1)?;
        max = Some(max.map_or_else(|| Ok(own.clone()), |max| max.maximum(&own))?);
    }
    let Some(max) = max else { candle_core::bail!("rows that see no key") };
    let (mut mixed, mut sum): (Option<Tensor>, Option<Tensor>) = (None, None);
    for part in parts {
        let exp = part.scores.broadcast_sub(&max)?.exp()?;
        let own_sum = exp.sum_keepdim(D::Minus1)?;
        let own_mixed = exp.matmul(&part.value)?;
        sum = Some(sum.map_or_else(|| Ok(own_sum.clone()), |sum| &sum + &own_sum)?);
        mixed = Some(mixed.map_or_else(|| Ok(own_mixed.clone()), |mixed| &mixed + &own_mixed)?);
    }
    match (mixed, sum) {
        (Some(mixed), Some(sum)) => mixed.broadcast_div(&sum),
        _ => candle_core::bail!("rows that see no key"),
    }
}
