use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use super::fair::Service;
use super::group::Lane;
use super::{Stage, Tenant, Ticket};

/// The items that can lead a batch now, in the two orders in which they do.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// Of each stage, by age.
    tickets: [BTreeSet<Ticket>; 2],
    /// Of each stage, the lanes that have items, by turn.
    ranks: [BTreeSet<Rank>; 2],
    flows: HashMap<Lane, Flow>,
}

/// Priority, service and name of a tenant.
type Rank = (Reverse<i32>, u64, Tenant);

/// The items of a lane, over all groups.
#[derive(Debug, Default)]
struct Flow {
    /// The service that the lane is ranked by. It may lag behind the tenant's, which only
    /// grows: that is put right when the lane comes to the front, so that a tenant with many
    /// lanes is charged in one step.
    ranked: u64,
    tickets: BTreeSet<Ticket>,
}

// === impl Ready ===

impl Ready {
    pub(super) fn has(&self, stage: Stage) -> bool {
        !self.tickets[stage as usize].is_empty()
    }

    pub(super) fn oldest(&self, stage: Stage) -> Option<Ticket> {
        self.tickets[stage as usize].first().copied()
    }

    /// The oldest item of the tenant with the least service among those of highest priority.
    pub(super) fn fairest(&mut self, stage: Stage, service: &Service) -> Option<(Ticket, u64)> {
        let ranks = &mut self.ranks[stage as usize];
        loop {
            let (priority, ranked, tenant) = ranks.pop_first()?;
            let served = service.served(&tenant);
            ranks.insert((priority, served, tenant.clone()));
            let lane = Lane { stage, priority: priority.0, tenant };
            let flow = self.flows.get_mut(&lane)?;
            flow.ranked = served;
            if ranked == served {
                return flow.tickets.first().map(|&ticket| (ticket, served));
            }
        }
    }

    pub(super) fn insert(&mut self, lane: &Lane, ticket: Ticket) {
        self.tickets[lane.stage as usize].insert(ticket);
        let flow = self.flows.entry(lane.clone()).or_default();
        if flow.tickets.is_empty() {
            self.ranks[lane.stage as usize].insert(rank(lane, flow.ranked));
        }
        flow.tickets.insert(ticket);
    }

    pub(super) fn remove(&mut self, lane: &Lane, ticket: Ticket) {
        self.tickets[lane.stage as usize].remove(&ticket);
        let Some(flow) = self.flows.get_mut(lane) else { return };
        flow.tickets.remove(&ticket);
        if flow.tickets.is_empty() {
            self.ranks[lane.stage as usize].remove(&rank(lane, flow.ranked));
            self.flows.remove(lane);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty()
            && self.tickets.iter().all(BTreeSet::is_empty)
            && self.ranks.iter().all(BTreeSet::is_empty)
    }
}

fn rank(lane: &Lane, served: u64) -> Rank {
    (Reverse(lane.priority), served, lane.tenant.clone())
}
