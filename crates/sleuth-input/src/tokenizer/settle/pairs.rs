//! The pairs of neighbouring characters in many texts.

/// A set of pairs of characters: a table of bits for ASCII, a sorted list for the rest.
#[derive(Debug)]
pub(super) struct Pairs {
    ascii: Box<[u128; 128]>,
    others: Box<[u64]>,
}

// === impl Pairs ===

impl Pairs {
    /// The neighbours in each of the texts.
    pub(super) fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut ascii = Box::new([0_u128; 128]);
        let mut others = Vec::new();
        for text in texts {
            for (a, b) in text.chars().zip(text.chars().skip(1)) {
                match ascii.get_mut(a as usize) {
                    Some(row) if b.is_ascii() => *row |= 1 << (b as u32),
                    _ => others.push(packed(a, b)),
                }
            }
        }
        others.sort_unstable();
        others.dedup();
        Self { ascii, others: others.into() }
    }

    pub(super) fn contains(&self, a: char, b: char) -> bool {
        match self.ascii.get(a as usize) {
            Some(row) if b.is_ascii() => row >> (b as u32) & 1 == 1,
            _ => self.others.binary_search(&packed(a, b)).is_ok(),
        }
    }
}

fn packed(a: char, b: char) -> u64 {
    u64::from(u32::from(a)) << 32 | u64::from(u32::from(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_in_and_others_are_not() {
        let pairs = Pairs::of(["abc", "a\u{2581}", "\u{2581}a", "é", "", "\u{7f}\0中文"]);
        let held = [('a', 'b'), ('b', 'c'), ('a', '▁'), ('▁', 'a'), ('\u{7f}', '\0'), ('\0', '中')];
        for (a, b) in held {
            assert!(pairs.contains(a, b), "{a:?} {b:?}");
        }
        for (a, b) in [('b', 'a'), ('a', 'c'), ('c', 'a'), ('é', 'é'), ('文', '中'), ('▁', '▁')]
        {
            assert!(!pairs.contains(a, b), "{a:?} {b:?}");
        }
        assert_eq!(pairs.others.len(), 4);
    }
}
