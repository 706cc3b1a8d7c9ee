use std::collections::BTreeSet;

/// Which device reads which other device's memory directly.
///
/// Access is one way: `(from, to)` and `(to, from)` are two facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerMatrix {
    open: BTreeSet<(u32, u32)>,
}

// === impl PeerMatrix ===

impl PeerMatrix {
    /// No device reaches another.
    pub fn none() -> Self {
        Self::default()
    }

    /// Notes that bytes of device `from` can be copied to device `to` directly.
    pub fn open(&mut self, from: u32, to: u32) {
        if from != to {
            self.open.insert((from, to));
        }
    }

    /// Notes that they no longer can.
    pub fn close(&mut self, from: u32, to: u32) {
        self.open.remove(&(from, to));
    }

    /// Whether bytes of device `from` can be copied to device `to` directly. A device is no peer of
    /// its own.
    pub fn reaches(&self, from: u32, to: u32) -> bool {
        self.open.contains(&(from, to))
    }

    /// All pairs `(from, to)`, ordered.
    pub fn pairs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.open.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_is_one_way_and_can_be_withdrawn() {
        let mut peers = PeerMatrix::none();
        peers.open(0, 1);
        peers.open(2, 2);
        assert!(peers.reaches(0, 1));
        assert!(!peers.reaches(1, 0) && !peers.reaches(2, 2));
        assert_eq!(peers.pairs().collect::<Vec<_>>(), [(0, 1)]);
        peers.close(0, 1);
        assert!(!peers.reaches(0, 1));
    }
}
