//! Which addresses a name has, by more than one answer.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use super::MAX_ENDPOINTS;

/// Addresses with the number of good answers in a row that missed them.
#[derive(Debug)]
pub(super) struct Memory {
    missed: BTreeMap<IpAddr, u32>,
    misses: u32,
}

// === impl Memory ===

impl Memory {
    /// An address is forgotten when `misses` good answers in a row were without it.
    pub(super) fn new(misses: u32) -> Self {
        Self { missed: BTreeMap::new(), misses: misses.max(1) }
    }

    /// Takes a good answer; whether an address that is still known was missing from it.
    pub(super) fn heard(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> bool {
        for missed in self.missed.values_mut() {
            *missed = missed.saturating_add(1);
        }
        for address in addresses {
            match self.missed.entry(address) {
                Entry::Occupied(mut known) => *known.get_mut() = 0,
                Entry::Vacant(new) => drop(new.insert(0)),
            }
            // Nothing that a server says makes this grow; twice, so that a full membership can
            // be exchanged for another one.
            if self.missed.len() > 2 * MAX_ENDPOINTS {
                self.missed.pop_last();
            }
        }
        self.missed.retain(|_, missed| *missed < self.misses);
        self.missed.values().any(|missed| *missed > 0)
    }

    pub(super) fn forget(&mut self) {
        self.missed.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.missed.is_empty()
    }

    /// In their order.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.missed.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u32) -> IpAddr {
        IpAddr::from((10 << 24 | last).to_be_bytes())
    }

    #[test]
    fn misses_are_counted_in_a_row() {
        let mut memory = Memory::new(3);
        assert!(!memory.heard([ip(1), ip(2)]));
        assert!(memory.heard([ip(1)]));
        assert!(memory.heard([ip(1)]));
        assert!(!memory.heard([ip(1), ip(2)]));
        assert!(memory.heard([ip(1)]) && memory.heard([ip(1)]));
        assert!(!memory.heard([ip(1)]));
        assert!(memory.addresses().eq([ip(1)]));
        assert!(!memory.is_empty());
        memory.forget();
        assert!(memory.is_empty());
    }

    #[test]
    fn it_does_not_grow_with_what_a_server_says() {
        let mut memory = Memory::new(2);
        for round in 0..50 {
            memory.heard((0..5000).rev().map(|i| ip(round * 5000 + i)));
            assert!(memory.addresses().count() <= 2 * MAX_ENDPOINTS);
        }
        let mut once = Memory::new(0);
        once.heard([ip(1)]);
        once.heard([ip(2)]);
        assert!(once.addresses().eq([ip(2)]));
    }
}
