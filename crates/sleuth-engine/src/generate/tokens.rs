use std::fmt;
use std::sync::Arc;

/// A set of token ids below a vocabulary's size, a bit each. Clones share it.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSet {
    bits: Arc<[u64]>,
    len: usize,
}

// === impl TokenSet ===

impl TokenSet {
    /// The ids below `vocabulary` that `holds` says.
    pub fn new(vocabulary: usize, holds: impl Fn(u32) -> bool) -> Self {
        let mut bits = vec![0_u64; vocabulary.div_ceil(64)];
        let mut len = 0;
        for id in (0..vocabulary).filter(|&id| holds(id as u32)) {
            bits[id / 64] |= 1 << (id % 64);
            len += 1;
        }
        Self { bits: bits.into(), len }
    }

    /// Whether `id` is one of them.
    pub fn contains(&self, id: u32) -> bool {
        let id = id as usize;
        self.bits.get(id / 64).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSet").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_it_was_made_of() {
        let set = TokenSet::new(130, |id| id % 3 == 0);
        for id in 0..200 {
            assert_eq!(set.contains(id), id % 3 == 0 && id < 130, "{id}");
        }
        assert_eq!((set.len(), set.is_empty()), (44, false));
        assert!(TokenSet::new(0, |_| true).is_empty());
    }
}
