/// Rows of f32 that stand `stride` apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    values: &'a [f32],
    stride: usize,
    count: usize,
}

/// Rows of f32 that stand `stride` apart, to be written.
#[derive(Debug)]
pub(super) struct RowsMut<'a> {
    values: &'a mut [f32],
    stride: usize,
    count: usize,
}

// === impl Rows ===

impl<'a> Rows<'a> {
    pub(super) fn new(values: &'a [f32], stride: usize, count: usize) -> Self {
        Self { values, stride, count }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// From row `row`'s first element to the end of its stride, or of the last row.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &'a [f32] {
        let start = row * self.stride;
        &self.values[start..self.values.len().min(start + self.stride)]
    }

    /// The rows `from..from + count`, each from column `column` on.
    pub(super) fn part(self, from: usize, count: usize, column: usize) -> Self {
        Self { values: &self.values[from * self.stride + column..], stride: self.stride, count }
    }
}

// === impl RowsMut ===

impl<'a> RowsMut<'a> {
    pub(super) fn new(values: &'a mut [f32], stride: usize, count: usize) -> Self {
        Self { values, stride, count }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &[f32] {
        let start = row * self.stride;
        &self.values[start..self.values.len().min(start + self.stride)]
    }

    #[inline(always)]
    pub(super) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let start = row * self.stride;
        let end = self.values.len().min(start + self.stride);
        &mut self.values[start..end]
    }

    /// The rows `from..from + count`, each from column `column` on.
    pub(super) fn part(&mut self, from: usize, count: usize, column: usize) -> RowsMut<'_> {
        let values = &mut self.values[from * self.stride + column..];
        RowsMut { values, stride: self.stride, count }
    }

    pub(super) fn as_rows(&self) -> Rows<'_> {
        Rows { values: self.values, stride: self.stride, count: self.count }
    }
}
