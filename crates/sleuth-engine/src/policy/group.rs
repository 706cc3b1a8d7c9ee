use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ready::Ready;
use super::{Stage, Tenant, Ticket};

/// What decides an item's turn, apart from its age.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) stage: Stage,
    pub(super) priority: i32,
    pub(super) tenant: Tenant,
}

/// The items of one prefix.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Claimed and waiting items; the prefix counts in the queue while there is one.
    pub(super) members: usize,
    /// How long the prefix should take, while there is a member.
    pub(super) predicted: Duration,
    /// A running batch computes the prefix, so nothing else of the group can run.
    computing: bool,
    /// Of each stage, as they join a batch that has the prefix.
    waiting: [BTreeSet<Ticket>; 2],
    /// Of each lane. Only the oldest of a lane can lead, so that alone is in [`Ready`], and a
    /// group of many items is blocked by few steps.
    lanes: BTreeMap<Lane, BTreeSet<Ticket>>,
}

// === impl Group ===

impl Group {
    pub(super) fn is_unused(&self) -> bool {
        self.members == 0 && !self.computing
    }

    pub(super) fn oldest(&self, stage: Stage) -> Option<Ticket> {
        self.waiting[stage as usize].first().copied()
    }

    /// Adds an item younger than all others.
    pub(super) fn insert(&mut self, lane: &Lane, ticket: Ticket, ready: &mut Ready) {
        self.waiting[lane.stage as usize].insert(ticket);
        let tickets = self.lanes.entry(lane.clone()).or_default();
        tickets.insert(ticket);
        if tickets.len() == 1 && !self.computing {
            ready.insert(lane, ticket);
        }
    }

    pub(super) fn remove(&mut self, lane: &Lane, ticket: Ticket, ready: &mut Ready) {
        self.waiting[lane.stage as usize].remove(&ticket);
        let Some(tickets) = self.lanes.get_mut(lane) else { return };
        let led = tickets.first() == Some(&ticket);
        tickets.remove(&ticket);
        let next = tickets.first().copied();
        if next.is_none() {
            self.lanes.remove(lane);
        }
        if led && !self.computing {
            ready.remove(lane, ticket);
            if let Some(next) = next {
                ready.insert(lane, next);
            }
        }
    }

    /// Says that a batch now computes the prefix, or has done so.
    pub(super) fn set_computing(&mut self, computing: bool, ready: &mut Ready) {
        if self.computing == computing {
            return;
        }
        self.computing = computing;
        for (lane, tickets) in &self.lanes {
            match tickets.first() {
                Some(&ticket) if computing => ready.remove(lane, ticket),
                Some(&ticket) => ready.insert(lane, ticket),
                None => {}
            }
        }
    }
}
