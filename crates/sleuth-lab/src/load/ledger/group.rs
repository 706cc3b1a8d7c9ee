use std::hash::{DefaultHasher, Hash, Hasher};

use super::Attempt;

/// An unfinished group.
#[derive(Debug)]
pub(super) struct Group {
    items: Vec<Item>,
    settled: usize,
    /// Hash of the version of the first valid verdict.
    version: Option<u64>,
    mixed: bool,
}

/// A member, from its arrival on.
#[derive(Clone, Debug, Default)]
pub(super) struct Item {
    arrived: bool,
    settled: bool,
    changed: bool,
    /// Retries that are decided but not sent yet.
    waits: u8,
    /// The bits of the attempts that have no verdict.
    outstanding: u64,
    /// Of the first valid verdict.
    fingerprint: Option<u64>,
}

// === impl Group ===

impl Group {
    pub(super) fn new(size: usize) -> Self {
        Self { items: vec![Item::default(); size], settled: 0, version: None, mixed: false }
    }

    /// `None` for a member that the group does not have.
    pub(super) fn item(&mut self, member: u32) -> Option<&mut Item> {
        self.items.get_mut(member as usize)
    }

    /// Takes the version of a valid verdict; whether it is the first to differ.
    pub(super) fn mixes(&mut self, version: &str) -> bool {
        // A hash rather than the text, so that a group's memory does not hang on the server.
        let mut hasher = DefaultHasher::new();
        version.hash(&mut hasher);
        let hash = hasher.finish();
        let differs = *self.version.get_or_insert(hash) != hash;
        differs && !std::mem::replace(&mut self.mixed, true)
    }

    /// Settles a member of which nothing is to come; whether that holds for all of them now.
    pub(super) fn settle(&mut self, member: u32) -> bool {
        if self.item(member).is_some_and(Item::settle) {
            self.settled += 1;
        }
        self.settled == self.items.len()
    }

    /// Attempts without a verdict.
    pub(super) fn outstanding(&self) -> u64 {
        self.items.iter().map(|item| u64::from(item.outstanding.count_ones())).sum()
    }
}

// === impl Item ===

impl Item {
    pub(super) fn sent(&mut self, attempt: Attempt) {
        self.arrived = true;
        self.outstanding |= attempt.bit();
        if attempt.number > 0 {
            self.waits = self.waits.saturating_sub(1);
        }
    }

    pub(super) fn not_sent(&mut self) {
        self.arrived = true;
    }

    /// Whether the attempt waited for a verdict.
    pub(super) fn answered(&mut self, attempt: Attempt, again: bool) -> bool {
        let awaited = self.outstanding & attempt.bit() != 0;
        self.outstanding &= !attempt.bit();
        self.waits += u8::from(awaited && again);
        awaited
    }

    /// Takes the fingerprint of a valid verdict; whether it is the first to differ.
    pub(super) fn changes(&mut self, fingerprint: u64) -> bool {
        let differs = *self.fingerprint.get_or_insert(fingerprint) != fingerprint;
        differs && !std::mem::replace(&mut self.changed, true)
    }

    /// Whether it became settled now.
    fn settle(&mut self) -> bool {
        let done = self.arrived && self.waits == 0 && self.outstanding == 0;
        done && !std::mem::replace(&mut self.settled, true)
    }
}
