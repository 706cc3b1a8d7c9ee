//! Running a kernel over the rows of contiguous f32 storage.

use candle_core::{CpuStorage, Layout, Result, bail};
use pulp::Arch;
use rayon::prelude::*;

/// Elements below which splitting over threads costs more than it wins.
const PARALLEL_FROM: usize = 32 * 1024;

/// The contiguous f32 elements behind a layout.
pub(super) fn f32_slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(values) = storage else {
        bail!("this kernel takes f32");
    };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!("this kernel takes contiguous tensors"),
    }
}

/// Calls `kernel(row index, input row, output row)` for every row of `width` elements.
pub(super) fn map_rows(
    input: &[f32],
    width: usize,
    kernel: impl Fn(usize, &[f32], &mut [f32]) + Sync,
) -> Vec<f32> {
    let mut output = vec![0.0; input.len()];
    for_rows(&mut output, width, |row, out| {
        kernel(row, &input[row * width..(row + 1) * width], out);
    });
    output
}

/// Calls `kernel(row index, output row)` for every row of `width` elements, in parallel where that
/// pays. A row is always computed whole by one thread, so the number of threads changes no bit.
pub(super) fn for_rows(
    output: &mut [f32],
    width: usize,
    kernel: impl Fn(usize, &mut [f32]) + Sync,
) {
    if width == 0 {
        return;
    }
    let arch = Arch::new();
    if output.len() < PARALLEL_FROM || rayon::current_num_threads() < 2 {
        arch.dispatch(move || run(output, width, 0, &kernel));
    } else {
        let rows_per_task = (PARALLEL_FROM / 4).div_ceil(width);
        let kernel = &kernel;
        output.par_chunks_mut(width * rows_per_task).enumerate().for_each(|(task, rows)| {
            arch.dispatch(move || run(rows, width, task * rows_per_task, kernel));
        });
    }
}

#[inline(always)]
fn run(rows: &mut [f32], width: usize, first: usize, kernel: &impl Fn(usize, &mut [f32])) {
    for (i, out) in rows.chunks_exact_mut(width).enumerate() {
        kernel(first + i, out);
    }
}

/// A sum in eight fixed lanes: the compiler may vectorise it without changing its order.
#[inline(always)]
pub(crate) fn lane_sum(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += term(value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += term(value);
    }
    fold(lanes)
}

/// A dot product in eight fixed lanes.
#[inline(always)]
pub(super) fn lane_dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += a * b;
    }
    fold(lanes)
}

#[inline(always)]
fn fold(lanes: [f32; 8]) -> f32 {
    ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6]))
        + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
}
