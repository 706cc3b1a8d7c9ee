//! What happens to rows between the products. Each works on a row from its first element to its
//! last, so neighbours change nothing.
//!
//! Every closure moves its output in: one that can run only once is inlined into the function that
//! is compiled for the machine's vectors, any other is called from it and stays scalar.

use pulp::Arch;

use super::rows::{Rows, RowsMut};
use crate::Activation;
use crate::ops::{exp, gelu, gelu_erf, lane_sum, row_max, silu};

/// RMS norm; of Gemma `weight` is `1 + w` already.
pub(super) fn rms_norm(x: Rows<'_>, weight: &[f32], eps: f32, out: RowsMut<'_>) {
    Arch::new().dispatch(
        #[inline(always)]
        move || {
            let mut out = out;
            for row in 0..x.count() {
                let x = &x.row(row)[..weight.len()];
                let mean = lane_sum(x, |x| x * x) / x.len() as f32;
                let scale = 1.0 / (mean + eps).sqrt();
                for ((out, x), w) in out.row_mut(row).iter_mut().zip(x).zip(weight) {
                    *out = x * scale * w;
                }
            }
        },
    );
}

/// RMS norm of each of the first `heads` parts of each row, in place.
pub(super) fn rms_norm_heads(x: RowsMut<'_>, heads: usize, weight: &[f32], eps: f32) {
    Arch::new().dispatch(
        #[inline(always)]
        move || {
            let (mut x, dim) = (x, weight.len());
            for row in 0..x.count() {
                for head in x.row_mut(row)[..heads * dim].chunks_exact_mut(dim) {
                    let mean = lane_sum(head, |x| x * x) / dim as f32;
                    let scale = 1.0 / (mean + eps).sqrt();
                    for (x, w) in head.iter_mut().zip(weight) {
                        *x = *x * scale * w;
                    }
                }
            }
        },
    );
}

/// Layer norm.
pub(super) fn layer_norm(
    x: Rows<'_>,
    (weight, bias): (&[f32], &[f32]),
    eps: f32,
    out: RowsMut<'_>,
) {
    Arch::new().dispatch(
        #[inline(always)]
        move || {
            let mut out = out;
            for row in 0..x.count() {
                let x = &x.row(row)[..weight.len()];
                let n = x.len() as f32;
                let mean = lane_sum(x, |x| x) / n;
                let variance = lane_sum(x, |x| (x - mean) * (x - mean)) / n;
                let scale = 1.0 / (variance + eps).sqrt();
                let affine = weight.iter().zip(bias);
                for ((out, x), (w, b)) in out.row_mut(row).iter_mut().zip(x).zip(affine) {
                    *out = (x - mean) * scale * w + b;
                }
            }
        },
    );
}

/// `out = act(gate) · up`, over `columns` columns.
pub(super) fn gated(
    activation: Activation,
    gate: Rows<'_>,
    up: Rows<'_>,
    columns: usize,
    out: RowsMut<'_>,
) {
    match activation {
        Activation::Silu => gated_by(silu, gate, up, columns, out),
        Activation::Gelu => gated_by(gelu_erf, gate, up, columns, out),
        Activation::GeluTanh => gated_by(gelu, gate, up, columns, out),
    }
}

#[inline(always)]
fn gated_by(
    act: impl Fn(f32) -> f32,
    gate: Rows<'_>,
    up: Rows<'_>,
    columns: usize,
    out: RowsMut<'_>,
) {
    Arch::new().dispatch(
        #[inline(always)]
        move || {
            let mut out = out;
            for row in 0..gate.count() {
                let (gate, up) = (&gate.row(row)[..columns], &up.row(row)[..columns]);
                for ((out, g), u) in out.row_mut(row)[..columns].iter_mut().zip(gate).zip(up) {
                    *out = act(*g) * u;
                }
            }
        },
    );
}

/// `x = act(x)`, over `columns` columns.
pub(super) fn bend(activation: Activation, x: RowsMut<'_>, columns: usize) {
    match activation {
        Activation::Silu => bend_by(silu, x, columns),
        Activation::Gelu => bend_by(gelu_erf, x, columns),
        Activation::GeluTanh => bend_by(gelu, x, columns),
    }
}

#[inline(always)]
fn bend_by(act: impl Fn(f32) -> f32, x: RowsMut<'_>, columns: usize) {
    Arch::new().dispatch(
        #[inline(always)]
        move || {
            let mut x = x;
            for row in 0..x.count() {
                for x in &mut x.row_mut(row)[..columns] {
                    *x = act(*x);
                }
            }
        },
    );
}

/// `x += y`, over `columns` columns.
pub(super) fn add(x: RowsMut<'_>, y: Rows<'_>, columns: usize) {
    Arch::new().dispatch(
        #[inline(always)]
        move || {
            let mut x = x;
            for row in 0..y.count() {
                let y = &y.row(row)[..columns];
                for (x, y) in x.row_mut(row)[..columns].iter_mut().zip(y) {
                    *x += y;
                }
            }
        },
    );
}

/// `x += factor · y`, over `columns` columns.
pub(super) fn add_times(x: RowsMut<'_>, y: Rows<'_>, factor: f32, columns: usize) {
    Arch::new().dispatch(
        #[inline(always)]
        move || {
            let mut x = x;
            for row in 0..y.count() {
                let y = &y.row(row)[..columns];
                for (x, y) in x.row_mut(row)[..columns].iter_mut().zip(y) {
                    *x += factor * y;
                }
            }
        },
    );
}

/// `x += row`, for every row of `x`.
pub(super) fn add_row(x: RowsMut<'_>, row: &[f32]) {
    Arch::new().dispatch(
        #[inline(always)]
        move || {
            let mut x = x;
            for at in 0..x.count() {
                for (x, y) in x.row_mut(at).iter_mut().zip(row) {
                    *x += y;
                }
            }
        },
    );
}

/// The dot product of a row with `weight`, in eight fixed lanes.
pub(super) fn dot(row: &[f32], weight: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 8];
    for (x, w) in row.chunks(8).zip(weight.chunks(8)) {
        for ((lane, x), w) in lanes.iter_mut().zip(x).zip(w) {
            *lane += x * w;
        }
    }
    lane_sum(&lanes, |x| x)
}

/// `ln Σ e^x`, over the largest.
pub(super) fn log_sum_exp(row: &[f32]) -> f32 {
    Arch::new().dispatch(
        #[inline(always)]
        move || {
            let max = row_max(row, f32::NEG_INFINITY);
            max + lane_sum(row, |x| exp(x - max)).ln()
        },
    )
}

/// What one row of attention scores sees: its first `shared` columns, and `own` from `start` on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) shared: usize,
    pub(super) start: usize,
    pub(super) own: usize,
    /// Columns from `start` on that the products read; those not seen become 0.
    pub(super) read: usize,
}

/// Exponentials of the scores that each row sees, over their largest; the row's sum goes to `sums`.
pub(super) fn exponentials(
    scores: RowsMut<'_>,
    scale: f32,
    seen: impl Fn(usize) -> Seen,
    sums: &mut [f32],
) {
    Arch::new().dispatch(
        #[inline(always)]
        move || {
            let mut scores = scores;
            for (row, sum) in sums.iter_mut().enumerate() {
                let Seen { shared, start, own, read } = seen(row);
                let row = scores.row_mut(row);
                let (left, right) = row.split_at_mut(start);
                let (left, right) = (&mut left[..shared], &mut right[..read]);
                let (visible, hidden) = right.split_at_mut(own);
                let max = row_max(visible, row_max(left, f32::NEG_INFINITY));
                *sum = 0.0;
                for part in [left, visible] {
                    for x in part.iter_mut() {
                        *x = exp((*x - max) * scale);
                    }
                    *sum += lane_sum(part, |p| p);
                }
                hidden.fill(0.0);
            }
        },
    );
}

/// Rotates each head of `x` `[rows, heads · 2·half]` by its row's angles.
pub(super) fn rotate<'t>(
    x: RowsMut<'_>,
    (heads, half): (usize, usize),
    angles: impl Fn(usize) -> (&'t [f32], &'t [f32]),
) {
    Arch::new().dispatch(
        #[inline(always)]
        move || {
            let mut x = x;
            for row in 0..x.count() {
                let (cos, sin) = angles(row);
                let (cos, sin) = (&cos[..half], &sin[..half]);
                for head in x.row_mut(row)[..heads * 2 * half].chunks_exact_mut(2 * half) {
                    let (first, second) = head.split_at_mut(half);
                    let angles = cos.iter().zip(sin);
                    for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
                        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                    }
                }
            }
        },
    );
}
