//! Where the router sends an item: to the replica that holds its prefix, else to the first choice
//! by hash under a bound on predicted load; parts of a group apart where that pays.
//!
//! A state machine without clock and I/O. Times are durations since any fixed start and never go
//! back; costs are seconds of one replica's device.

mod choose;
mod cost;
mod fleet;
mod groups;
mod horizon;
mod item;
mod member;
mod pace;
mod replica_id;
mod residency;
mod settings;
mod together;

use std::sync::Arc;
use std::time::Duration;

use cost::Cost;
use fleet::{Fleet, Replica, Slot};
use groups::Groups;
use horizon::Horizon;
use residency::Residency;

pub use replica_id::ReplicaId;
pub use settings::PlacementSettings;

/// Digest of version, image and prompt, as replicas report it.
pub type PrefixDigest = [u8; 32];

/// Names a group among those of all tenants.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// Whose group it is.
    pub tenant: Arc<str>,
    /// Its name.
    pub id: Arc<str>,
}

/// The group of an item.
#[derive(Clone, Copy, Debug)]
pub struct AskGroup<'a> {
    /// Its name.
    pub key: &'a GroupKey,
    /// Members in all; 0: unknown.
    pub size: u32,
    /// Seconds that a member is expected to take, without the prefix; 0: as this item.
    pub item_cost: f64,
}

/// What an item asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What it shares with others.
    pub prefix: PrefixDigest,
    /// Who should be where it is.
    pub group: Option<AskGroup<'a>>,
    /// Seconds to compute the prefix where it is not resident.
    pub prefix_cost: f64,
    /// Seconds for the response.
    pub item_cost: f64,
    /// Only replicas that answer with this version, where given.
    pub version: Option<&'a str>,
    /// False: the group's version is not known, so it must stay together until then.
    pub splittable: bool,
    /// Replicas that the item failed on; used again only if there is no other.
    pub avoid: &'a [ReplicaId],
    /// Where the same item went before: there its verdict may be known. Taken if it takes items.
    pub before: Option<&'a ReplicaId>,
}

/// Where an item goes.
#[derive(Debug)]
#[must_use = "what is placed counts as load until its ticket is given back"]
pub struct Placed {
    /// To which replica.
    pub replica: ReplicaId,
    /// The group's, to be required of the replica.
    pub version: Option<Arc<str>>,
    /// Why there.
    pub reason: Reason,
    /// To be given back by [`Placement::end`].
    pub ticket: Ticket,
}

/// Why an item goes where it goes. Without evictions, prefixes are computed as often as items are
/// placed for another reason than [`Reason::Resident`] and [`Reason::Group`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The prefix is there, or an item that is out there computes it.
    Resident,
    /// It follows its group.
    Group,
    /// The first choice by hash.
    Rendezvous,
    /// A lower choice, as the load bound had it.
    Spilled,
    /// The first of a part of its group that is placed elsewhere on purpose.
    Split,
    /// The first that goes elsewhere as a replica failed, drains or left.
    Failover,
}

/// Why an item goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unplaced {
    /// None is known.
    #[error("no replica is known")]
    NoReplicas,
    /// Some are known, but none takes items.
    #[error("no replica takes items: {draining} drain, {unhealthy} are unhealthy")]
    NoneAvailable {
        /// How many are about to stop.
        draining: usize,
        /// How many have failed of late and do not drain.
        unhealthy: usize,
    },
    /// None that takes items answers with the version that the item or its group needs. Also while
    /// that version is unknown and members are out there where this one cannot go.
    #[error("no replica that takes items answers with the group's version")]
    NoneWithVersion,
}

/// What a replica says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Seconds that all it holds should take, of all routers.
    pub queue: f64,
    /// Prefixes that came.
    pub added: Vec<PrefixDigest>,
    /// Prefixes that left.
    pub removed: Vec<PrefixDigest>,
    /// Then `added` is all there is.
    pub is_first: bool,
    /// What it answers with, the default first.
    pub versions: Vec<Arc<str>>,
    /// Whether it refuses new items.
    pub draining: bool,
}

/// Stands for an item that was placed.
#[derive(Debug)]
#[must_use = "an item whose ticket is lost counts as load forever"]
pub struct Ticket {
    slot: Slot,
    cost: Cost,
    prefix: PrefixDigest,
    group: Option<(Arc<GroupKey>, u64)>,
}

/// One replica, for metrics and views.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaSnapshot {
    /// Which.
    pub id: ReplicaId,
    /// Share of items it gets, 0..=1.
    pub weight: f64,
    /// Seconds of work there, reservations and what others sent included.
    pub load: f64,
    /// Items this router sent there that have not ended.
    pub unfinished: usize,
    /// Prefixes that are there as far as is known.
    pub resident: usize,
    /// Whether it refuses new items.
    pub draining: bool,
    /// Items placed there since it joined, by [`Reason::ALL`].
    pub placed: [u64; Reason::ALL.len()],
    /// Its default version, if it said so.
    pub version: Option<Arc<str>>,
}

/// Decides where items go.
///
/// Invariants
/// - Members of a group go to one replica until its version is known, and then only to replicas
///   that answer with it.
/// - A replica of weight 0 or one that drains gets nothing.
/// - Load that this router put somewhere is given back exactly.
/// - Memory is bounded by the settings, and beyond that by tickets that are out.
#[derive(Debug)]
pub struct Placement {
    settings: PlacementSettings,
    fleet: Fleet,
    residency: Residency,
    groups: Groups,
    horizon: Horizon,
    /// Seconds of what is about to be placed together with the item that is being placed.
    waiting: f64,
    now: Duration,
}

// === impl Reason ===

impl Reason {
    /// Every reason, in the order of [`ReplicaSnapshot::placed`].
    pub const ALL: [Self; 6] =
        [Self::Resident, Self::Group, Self::Rendezvous, Self::Spilled, Self::Split, Self::Failover];

    /// The name in metrics and traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resident => "resident",
            Self::Group => "group",
            Self::Rendezvous => "rendezvous",
            Self::Spilled => "spilled",
            Self::Split => "split",
            Self::Failover => "failover",
        }
    }
}

// === impl Placement ===

impl Placement {
    /// Knows no replica yet.
    pub fn new(settings: PlacementSettings) -> Self {
        Self {
            settings,
            fleet: Fleet::default(),
            residency: Residency::default(),
            groups: Groups::default(),
            horizon: Horizon::default(),
            waiting: 0.0,
            now: Duration::ZERO,
        }
    }

    /// Takes over the members as discovered. What left is forgotten; groups that were there are
    /// placed anew, and tickets of what was there may still be given back.
    pub fn set_replicas(&mut self, ids: &[ReplicaId], now: Duration) {
        self.advance(now);
        for slot in self.fleet.set(ids, self.now) {
            self.residency.remove(slot);
        }
    }

    /// Takes note of what a replica says. Unknown replicas are ignored.
    pub fn report(&mut self, id: &ReplicaId, report: &Report, now: Duration) {
        self.advance(now);
        let Some(slot) = self.fleet.slot(id) else { return };
        if report.is_first {
            self.residency.lost(slot);
        }
        self.residency.report(slot, &report.added, &report.removed, self.settings.max_prefixes);
        self.fleet.report(slot, report.queue, self.now);
        if let Some(replica) = self.fleet.get_mut(slot) {
            replica.draining = report.draining;
            replica.versions.clone_from(&report.versions);
        }
    }

    /// Reports stopped: what is resident there and what others sent is unknown.
    pub fn lost(&mut self, id: &ReplicaId) {
        if let Some(slot) = self.fleet.slot(id) {
            self.residency.lost(slot);
            self.fleet.lost(slot);
        }
    }

    /// How much of its share a replica gets: 0 nothing, 1 the whole.
    pub fn set_health(&mut self, id: &ReplicaId, weight: f64, now: Duration) {
        self.advance(now);
        if let Some(slot) = self.fleet.slot(id) {
            self.fleet.set_health(slot, weight);
        }
    }

    /// Finds a replica for an item, and counts it as load there.
    pub fn place(&mut self, ask: &Ask<'_>, now: Duration) -> Result<Placed, Unplaced> {
        self.advance(now);
        self.place_item(ask)
    }

    /// The first verdict of a group says with which version it is answered. False if that is not
    /// the version the group has already.
    pub fn fix_version(&mut self, group: &GroupKey, version: &str, now: Duration) -> bool {
        self.advance(now);
        let Some(group) = self.groups.get_mut(group) else { return true };
        **group.version.get_or_insert_with(|| Arc::from(version)) == *version
    }

    /// The group's version is gone and no verdict had come: it is placed anew, together, with any
    /// version once nothing is out there that may still answer with this one.
    pub fn unfix_version(&mut self, group: &GroupKey) {
        if let Some(group) = self.groups.get_mut(group) {
            group.close(&mut self.fleet);
            group.version = None;
        }
    }

    /// The item ended where it was placed, for whatever reason. `computed`: its prefix is resident
    /// there now.
    pub fn end(&mut self, ticket: Ticket, now: Duration, computed: bool) {
        self.advance(now);
        let Ticket { slot, mut cost, prefix, group } = ticket;
        if self.fleet.get(slot).is_some() {
            let assumed = computed.then_some(self.now + self.settings.assumed_resident);
            cost.add(self.residency.ended(slot, &prefix, assumed));
            self.fleet.end(slot, cost, computed, self.now);
        }
        if let Some((key, part)) = group {
            self.groups.ended(&key, part);
        }
        self.horizon.ended(self.fleet.out(), self.now);
    }

    /// All replicas in the order of their names.
    pub fn snapshot(&self) -> Vec<ReplicaSnapshot> {
        let one = |(slot, replica): (Slot, &Replica)| ReplicaSnapshot {
            id: replica.id.clone(),
            weight: replica.weight(self.now, self.settings.slow_start),
            load: replica.load(self.now),
            unfinished: replica.items,
            resident: self.residency.count(slot),
            draining: replica.draining,
            placed: replica.placed,
            version: replica.versions.first().cloned(),
        };
        self.fleet.iter().map(one).collect()
    }

    /// How many groups are remembered.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        self.residency.advance(self.now);
        self.groups.advance(self.settings.group_terms(), self.now, &mut self.fleet);
    }
}

#[cfg(test)]
mod tests;
