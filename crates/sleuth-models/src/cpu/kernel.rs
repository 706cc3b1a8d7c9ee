//! One matrix product for everything: rows times panels of sixteen columns.
//!
//! Every output is one chain of fused multiply-adds over the depth, from its first element to its
//! last, whatever the rows around it, the machine's vectors or the number of threads. So the same
//! row and column give the same bits in any batch. Blocking over depth stores a chain to memory and
//! takes it up again, which changes no bit.
#![expect(
    clippy::needless_range_loop,
    reason = "iterators over arrays of registers are not inlined into the vectorised function"
)]

use pulp::NullaryFnOnce;

use super::rows::{Rows, RowsMut};

/// Columns of a panel: a cache line of f32.
pub(super) const WIDTH: usize = 16;

/// A row of a panel.
pub(super) type Lane = [f32; WIDTH];

/// Depth that is worked through at once, so that a pair of panels stays in the second-level cache.
const DEPTH: usize = 512;

/// Columns in groups of [`WIDTH`]: panel `j` holds `depth` rows from `pitch · j` on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels<'a> {
    lanes: &'a [Lane],
    pitch: usize,
    depth: usize,
}

/// Whether a product replaces what `out` holds or goes on from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// From zero.
    Zero,
    /// From the sums of the depth before.
    Sums,
}

/// `out[r][c] = Σ_k a[r][k] · panels[k][c]`, in the order of `k`. `a` has at least `depth` columns,
/// `out` as many rows as `a` and [`WIDTH`] columns for each panel.
pub(super) fn multiply(a: Rows<'_>, panels: Panels<'_>, out: RowsMut<'_>, start: Start) {
    let work = Multiply { vector: Portable, a, panels, out, start };
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(v4) = pulp::x86::V4::try_new() {
            return v4.vectorize(work.with(v4));
        }
        if let Some(v3) = pulp::x86::V3::try_new() {
            return v3.vectorize(work.with(v3));
        }
    }
    work.call();
}

struct Multiply<'a, V> {
    vector: V,
    a: Rows<'a>,
    panels: Panels<'a>,
    out: RowsMut<'a>,
    start: Start,
}

/// Sixteen f32 in the registers of a machine.
trait Vector: Copy {
    type Lane: Copy;
    /// Rows and panels of the largest kernel that its registers hold; panels are 1 or 2.
    const ROWS: usize;
    const PANELS: usize;
    fn splat(self, x: f32) -> Self::Lane;
    fn load(self, lane: &Lane) -> Self::Lane;
    fn store(self, lane: Self::Lane, to: &mut Lane);
    /// `x · y + sum`, rounded once.
    fn fma(self, x: Self::Lane, y: Self::Lane, sum: Self::Lane) -> Self::Lane;
}

/// Whatever the compiler makes of it.
#[derive(Clone, Copy)]
struct Portable;

// === impl Panels ===

impl<'a> Panels<'a> {
    pub(super) fn new(lanes: &'a [Lane], pitch: usize, depth: usize) -> Self {
        debug_assert!(depth <= pitch && lanes.len().is_multiple_of(pitch));
        Self { lanes, pitch, depth }
    }

    /// The panels `from..to`.
    pub(super) fn range(self, from: usize, to: usize) -> Self {
        Self { lanes: &self.lanes[from * self.pitch..to * self.pitch], ..self }
    }

    pub(super) fn count(self) -> usize {
        self.lanes.len() / self.pitch
    }

    /// Row `k` of panel `j`.
    #[cfg(test)]
    pub(super) fn at(self, j: usize, k: usize) -> &'a Lane {
        &self.lanes[j * self.pitch + k]
    }

    /// Rows `from..from + len` of panel `j`.
    fn rows(self, j: usize, from: usize, len: usize) -> &'a [Lane] {
        &self.lanes[j * self.pitch + from..j * self.pitch + from + len]
    }
}

// === impl Multiply ===

impl<'a, V> Multiply<'a, V> {
    fn with<W>(self, vector: W) -> Multiply<'a, W> {
        let Self { a, panels, out, start, .. } = self;
        Multiply { vector, a, panels, out, start }
    }
}

impl<V: Vector> NullaryFnOnce for Multiply<'_, V> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        let panels = self.panels.count();
        let mut j = 0;
        while j < panels {
            if V::PANELS == 2 && j + 2 <= panels {
                self.columns::<2>(j);
                j += 2;
            } else {
                self.columns::<1>(j);
                j += 1;
            }
        }
    }
}

impl<V: Vector> Multiply<'_, V> {
    /// `P` panels from `j` on, against all rows.
    #[inline(always)]
    fn columns<const P: usize>(&mut self, j: usize) {
        let mut from = 0;
        let mut start = self.start;
        while from < self.panels.depth {
            let len = DEPTH.min(self.panels.depth - from);
            let b: [&[Lane]; P] = std::array::from_fn(|p| self.panels.rows(j + p, from, len));
            let mut row = 0;
            while row < self.a.count() {
                let rows = V::ROWS.min(self.a.count() - row);
                self.strip::<P>(row, rows, j * WIDTH, from, b, start);
                row += rows;
            }
            from += len;
            start = Start::Sums;
        }
    }

    #[inline(always)]
    fn strip<const P: usize>(
        &mut self,
        row: usize,
        rows: usize,
        column: usize,
        from: usize,
        b: [&[Lane]; P],
        start: Start,
    ) {
        match rows {
            1 => self.tile::<1, P>(row, column, from, b, start),
            2 => self.tile::<2, P>(row, column, from, b, start),
            3 => self.tile::<3, P>(row, column, from, b, start),
            4 => self.tile::<4, P>(row, column, from, b, start),
            5 => self.tile::<5, P>(row, column, from, b, start),
            6 => self.tile::<6, P>(row, column, from, b, start),
            // Only vectors whose registers hold twelve rows come further.
            _ if V::ROWS <= 6 => {}
            7 => self.tile::<7, P>(row, column, from, b, start),
            8 => self.tile::<8, P>(row, column, from, b, start),
            9 => self.tile::<9, P>(row, column, from, b, start),
            10 => self.tile::<10, P>(row, column, from, b, start),
            11 => self.tile::<11, P>(row, column, from, b, start),
            _ => self.tile::<12, P>(row, column, from, b, start),
        }
    }

    /// `M` rows from `row` on times `P` panels, held in registers over the depth.
    #[inline(always)]
    fn tile<const M: usize, const P: usize>(
        &mut self,
        row: usize,
        column: usize,
        from: usize,
        b: [&[Lane]; P],
        start: Start,
    ) {
        let v = self.vector;
        let len = b[0].len();
        let mut a: [&[f32]; M] = [&[]; M];
        for i in 0..M {
            a[i] = &self.a.row(row + i)[from..from + len];
        }
        let mut b = b;
        for p in 0..P {
            b[p] = &b[p][..len];
        }
        let mut sums = [[v.splat(0.0); P]; M];
        if start == Start::Sums {
            for i in 0..M {
                let (lanes, _) = self.out.row(row + i)[column..column + P * WIDTH].as_chunks();
                for p in 0..P {
                    sums[i][p] = v.load(&lanes[p]);
                }
            }
        }
        for k in 0..len {
            let mut lanes = [v.splat(0.0); P];
            for p in 0..P {
                lanes[p] = v.load(&b[p][k]);
            }
            for i in 0..M {
                let x = v.splat(a[i][k]);
                for p in 0..P {
                    sums[i][p] = v.fma(x, lanes[p], sums[i][p]);
                }
            }
        }
        for i in 0..M {
            let (lanes, _) = self.out.row_mut(row + i)[column..column + P * WIDTH].as_chunks_mut();
            for p in 0..P {
                v.store(sums[i][p], &mut lanes[p]);
            }
        }
    }
}

// === impl Vector ===

impl Vector for Portable {
    type Lane = Lane;
    const ROWS: usize = 4;
    const PANELS: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Lane {
        [x; WIDTH]
    }

    #[inline(always)]
    fn load(self, lane: &Lane) -> Lane {
        *lane
    }

    #[inline(always)]
    fn store(self, lane: Lane, to: &mut Lane) {
        *to = lane;
    }

    #[inline(always)]
    fn fma(self, x: Lane, y: Lane, sum: Lane) -> Lane {
        std::array::from_fn(|i| x[i].mul_add(y[i], sum[i]))
    }
}

#[cfg(target_arch = "x86_64")]
impl Vector for pulp::x86::V3 {
    type Lane = [pulp::f32x8; 2];
    const ROWS: usize = 6;
    const PANELS: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::Lane {
        [self.splat_f32x8(x); 2]
    }

    #[inline(always)]
    fn load(self, lane: &Lane) -> Self::Lane {
        pulp::cast(*lane)
    }

    #[inline(always)]
    fn store(self, lane: Self::Lane, to: &mut Lane) {
        *to = pulp::cast(lane);
    }

    #[inline(always)]
    fn fma(self, x: Self::Lane, y: Self::Lane, sum: Self::Lane) -> Self::Lane {
        [self.mul_add_f32x8(x[0], y[0], sum[0]), self.mul_add_f32x8(x[1], y[1], sum[1])]
    }
}

#[cfg(target_arch = "x86_64")]
impl Vector for pulp::x86::V4 {
    type Lane = pulp::f32x16;
    const ROWS: usize = 12;
    const PANELS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::Lane {
        self.splat_f32x16(x)
    }

    #[inline(always)]
    fn load(self, lane: &Lane) -> Self::Lane {
        pulp::cast(*lane)
    }

    #[inline(always)]
    fn store(self, lane: Self::Lane, to: &mut Lane) {
        *to = pulp::cast(lane);
    }

    #[inline(always)]
    fn fma(self, x: Self::Lane, y: Self::Lane, sum: Self::Lane) -> Self::Lane {
        self.mul_add_f32x16(x, y, sum)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values whose sums depend on the order they are taken in.
    fn noise(seed: u64, len: usize) -> Vec<f32> {
        let mut state = seed | 1;
        std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        })
        .take(len)
        .collect()
    }

    fn run<V: Vector>(
        vector: V,
        (a, rows, lda): (&[f32], usize, usize),
        panels: Panels<'_>,
        start: Start,
        out: &mut [f32],
    ) {
        let ldc = panels.count() * WIDTH;
        let a = Rows::new(a, lda, rows);
        Multiply { vector, a, panels, out: RowsMut::new(out, ldc, rows), start }.call();
    }

    proptest! {
        #[test]
        fn every_machine_gives_the_bits_of_one_chain_per_output(
            rows in 1usize..30, panels in 1usize..5, depth in 1usize..1200, seed: u64,
        ) {
            let a = noise(seed, rows * (depth + 3));
            let flat = noise(!seed, panels * depth * WIDTH);
            let (lanes, _) = flat.as_chunks();
            let b = Panels::new(lanes, depth, depth);
            let before = noise(seed.rotate_left(7), rows * panels * WIDTH);
            for start in [Start::Zero, Start::Sums] {
                let mut want = before.clone();
                for (i, want) in want.iter_mut().enumerate() {
                    let (r, c) = (i / (panels * WIDTH), i % (panels * WIDTH));
                    let mut sum = if start == Start::Zero { 0.0 } else { *want };
                    for k in 0..depth {
                        sum = a[r * (depth + 3) + k].mul_add(lanes[c / WIDTH * depth + k][c % WIDTH], sum);
                    }
                    *want = sum;
                }
                let a = (a.as_slice(), rows, depth + 3);
                let mut got = before.clone();
                run(Portable, a, b, start, &mut got);
                prop_assert!(got == want);
                #[cfg(target_arch = "x86_64")]
                {
                    if let Some(v3) = pulp::x86::V3::try_new() {
                        let mut got = before.clone();
                        v3.vectorize(|| run(v3, a, b, start, &mut got));
                        prop_assert!(got == want);
                    }
                    if let Some(v4) = pulp::x86::V4::try_new() {
                        let mut got = before.clone();
                        v4.vectorize(|| run(v4, a, b, start, &mut got));
                        prop_assert!(got == want);
                    }
                }
            }
        }
    }
}
