mod counts;
mod group;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use group::Group;

use super::{Answer, Arrival};

pub use counts::{Counts, Verdict};

/// One sending of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// 0, or 1 for the copy of an item that is sent twice on purpose.
    pub copy: u8,
    /// From 0; above it, a retry. At most [`Attempt::MOST_RETRIES`].
    pub number: u32,
}

/// Accounts for every item, in memory for the unfinished groups alone.
///
/// Every item that arrives is told once with [`sent`](Self::sent) or
/// [`not_sent`](Self::not_sent). A group is finished, and leaves the memory, when all its members
/// are settled: not sent, or with a verdict on every attempt and no retry to come.
#[derive(Debug)]
pub struct Ledger {
    group_size: usize,
    open: HashMap<u64, Group>,
    counts: Counts,
}

// === impl Attempt ===

impl Attempt {
    /// Retries that can be told apart.
    pub const MOST_RETRIES: u32 = 31;
    /// The first sending of an item.
    pub const FIRST: Self = Self { copy: 0, number: 0 };

    /// Its bit among an item's attempts.
    fn bit(self) -> u64 {
        1 << (32 * u32::from(self.copy.min(1)) + self.number.min(Self::MOST_RETRIES))
    }
}

// === impl Ledger ===

impl Ledger {
    /// For groups of so many members.
    pub fn new(group_size: u32) -> Self {
        let group_size = group_size as usize;
        Self { group_size, open: HashMap::new(), counts: Counts::default() }
    }

    /// An attempt at an item was sent.
    pub fn sent(&mut self, arrival: &Arrival, attempt: Attempt) {
        self.counts.attempts += 1;
        self.counts.sent += u64::from(attempt == Attempt::FIRST);
        let group = self.group(arrival.group);
        if let Some(item) = group.item(arrival.member) {
            item.sent(attempt);
        }
    }

    /// An item came due but was not sent, because too many were unfinished.
    pub fn not_sent(&mut self, arrival: &Arrival) {
        self.counts.not_sent += 1;
        let group = self.group(arrival.group);
        if let Some(item) = group.item(arrival.member) {
            item.not_sent();
        }
        self.settle(arrival);
    }

    /// A verdict came; `again` says that the item will be sent once more because of it.
    ///
    /// A verdict that nothing waits for, be it a second one for the attempt or one for an item that
    /// was never sent, counts as twice answered and as nothing else, but that it is compared with
    /// the item's rewards while its group is unfinished.
    pub fn answered(&mut self, arrival: &Arrival, attempt: Attempt, answer: &Answer, again: bool) {
        let counts = &mut self.counts;
        let group = self.open.get_mut(&arrival.group);
        let Some((group, awaited)) = group.and_then(|group| {
            let awaited = group.item(arrival.member)?.answered(attempt, again);
            Some((group, awaited))
        }) else {
            counts.twice_answered += 1;
            return;
        };
        if awaited {
            counts.take(answer);
        } else {
            counts.twice_answered += 1;
        }
        if let Answer::Valid { version, fingerprint, .. } = answer {
            let changed = group.item(arrival.member).is_some_and(|item| item.changes(*fingerprint));
            counts.changed_answers += u64::from(changed);
            counts.mixed_groups += u64::from(awaited && group.mixes(version));
        }
        self.settle(arrival);
    }

    /// Groups of which something is still to come.
    pub fn unfinished_groups(&self) -> usize {
        self.open.len()
    }

    /// Ends the run: what has no verdict by now is unanswered.
    pub fn close(mut self) -> Counts {
        self.counts.groups += self.open.len() as u64;
        self.counts.unanswered = self.open.values().map(Group::outstanding).sum();
        self.counts
    }

    fn group(&mut self, number: u64) -> &mut Group {
        let size = self.group_size;
        self.open.entry(number).or_insert_with(|| Group::new(size))
    }

    /// Folds the item's group if nothing of it is to come.
    fn settle(&mut self, arrival: &Arrival) {
        let finished =
            self.open.get_mut(&arrival.group).is_some_and(|group| group.settle(arrival.member));
        if finished {
            self.open.remove(&arrival.group);
            self.counts.groups += 1;
        }
    }
}
