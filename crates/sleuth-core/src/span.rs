use std::ops::Range;

/// A half-open range of UTF-8 bytes of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteSpan {
    start: u32,
    end: u32,
}

/// The end of a span lies before its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSpan {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

// === impl ByteSpan ===

impl ByteSpan {
    /// Makes a span; `start <= end` must hold.
    pub const fn try_new(start: u32, end: u32) -> Result<Self, InvalidSpan> {
        if start <= end { Ok(Self { start, end }) } else { Err(InvalidSpan { start, end }) }
    }

    /// The span of no bytes at `at`.
    pub const fn empty(at: u32) -> Self {
        Self { start: at, end: at }
    }

    /// First byte.
    pub const fn start(self) -> u32 {
        self.start
    }

    /// One past the last byte.
    pub const fn end(self) -> u32 {
        self.end
    }

    /// Length in bytes.
    pub const fn len(self) -> u32 {
        self.end - self.start
    }

    /// True for a span of no bytes.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// True where the two spans share at least one byte; a span of no bytes shares none.
    pub const fn overlaps(self, other: Self) -> bool {
        let shared = self.start < other.end && other.start < self.end;
        shared && !self.is_empty() && !other.is_empty()
    }

    /// The smallest span that holds both.
    #[must_use]
    pub const fn to(self, other: Self) -> Self {
        let start = if self.start < other.start { self.start } else { other.start };
        let end = if self.end > other.end { self.end } else { other.end };
        Self { start, end }
    }

    /// The range, for indexing a text's bytes.
    pub const fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

// === impl InvalidSpan ===

impl std::fmt::Display for InvalidSpan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "span ends at byte {} before it starts at byte {}", self.end, self.start)
    }
}

impl std::error::Error for InvalidSpan {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reversed_span_is_refused() {
        assert_eq!(ByteSpan::try_new(3, 2), Err(InvalidSpan { start: 3, end: 2 }));
    }

    #[test]
    fn touching_spans_do_not_overlap() {
        let (a, b) = (ByteSpan::try_new(0, 2).unwrap(), ByteSpan::try_new(2, 4).unwrap());
        assert!(!a.overlaps(b));
        assert!(a.overlaps(ByteSpan::try_new(1, 3).unwrap()));
    }

    #[test]
    fn a_span_of_no_bytes_overlaps_nothing() {
        let (a, b) = (ByteSpan::try_new(0, 2).unwrap(), ByteSpan::empty(1));
        assert!(!a.overlaps(b) && !b.overlaps(a) && !b.overlaps(b));
    }
}
