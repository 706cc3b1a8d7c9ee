use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use super::PrefixDigest;
use super::cost::Cost;
use super::fleet::Slot;

/// Which replicas hold which prefixes: as they report, as was computed just now, and as items that
/// are on their way will compute.
#[derive(Debug, Default)]
pub(super) struct Residency {
    holders: HashMap<PrefixDigest, Vec<Holder>>,
    /// The same from the other side, to forget a replica.
    of: HashMap<Slot, Known>,
    /// What to stop assuming when, oldest first.
    assumed: VecDeque<(Duration, Slot, PrefixDigest)>,
}

#[derive(Debug, Default)]
struct Known {
    prefixes: HashSet<PrefixDigest>,
    reported: usize,
}

#[derive(Debug)]
struct Holder {
    slot: Slot,
    reported: bool,
    /// Computed just now, and counts as held until then even if no report says so.
    assumed: Option<Duration>,
    /// Items of the prefix that are out there.
    items: u32,
    /// What the replica is charged for computing it.
    charged: Cost,
}

// === impl Residency ===

impl Residency {
    /// Whether a replica holds the prefix, or will before another item could compute it.
    pub(super) fn is_held(&self, slot: Slot, prefix: &PrefixDigest) -> bool {
        self.holders
            .get(prefix)
            .is_some_and(|holders| holders.iter().any(|holder| holder.slot == slot))
    }

    /// Whether any replica holds the prefix or will.
    pub(super) fn is_anywhere(&self, prefix: &PrefixDigest) -> bool {
        self.holders.contains_key(prefix)
    }

    /// An item goes there. What the replica has to be charged for the prefix: 0 where it is held.
    pub(super) fn sent(&mut self, slot: Slot, prefix: &PrefixDigest, cost: Cost) -> Cost {
        let is_new = !self.is_held(slot, prefix);
        let holder = self.entry(slot, prefix);
        holder.items = holder.items.saturating_add(1);
        if is_new {
            holder.charged = cost;
            return cost;
        }
        Cost::ZERO
    }

    /// An item ended there. What the replica is no longer charged for the prefix.
    pub(super) fn ended(
        &mut self,
        slot: Slot,
        prefix: &PrefixDigest,
        assumed: Option<Duration>,
    ) -> Cost {
        let Some(holder) = self.find(slot, prefix) else { return Cost::ZERO };
        holder.items = holder.items.saturating_sub(1);
        let mut refund = Cost::ZERO;
        if holder.items == 0 || assumed.is_some() {
            refund = std::mem::take(&mut holder.charged);
        }
        if let Some(until) = assumed
            && !holder.reported
        {
            holder.assumed = Some(until);
            self.assumed.push_back((until, slot, *prefix));
        }
        self.tidy(slot, prefix);
        refund
    }

    /// A replica says what came and left. Whatever this says, prefixes of items that are out there
    /// count as held.
    pub(super) fn report(
        &mut self,
        slot: Slot,
        added: &[PrefixDigest],
        removed: &[PrefixDigest],
        most: usize,
    ) {
        for prefix in removed {
            self.set_unreported(slot, prefix);
        }
        for prefix in added {
            if self.of.get(&slot).is_some_and(|known| known.reported >= most) {
                break;
            }
            let holder = self.entry(slot, prefix);
            let is_new = !std::mem::replace(&mut holder.reported, true);
            holder.assumed = None;
            self.of.entry(slot).or_default().reported += usize::from(is_new);
        }
    }

    /// Forgets what a replica said.
    pub(super) fn lost(&mut self, slot: Slot) {
        let known: Vec<PrefixDigest> = self
            .of
            .get(&slot)
            .into_iter()
            .flat_map(|known| known.prefixes.iter().copied())
            .collect();
        for prefix in known {
            self.set_unreported(slot, &prefix);
        }
    }

    /// Forgets a replica.
    pub(super) fn remove(&mut self, slot: Slot) {
        for prefix in self.of.remove(&slot).unwrap_or_default().prefixes {
            if let Some(holders) = self.holders.get_mut(&prefix) {
                holders.retain(|holder| holder.slot != slot);
                if holders.is_empty() {
                    self.holders.remove(&prefix);
                }
            }
        }
    }

    /// Stops to assume what no report said in time.
    pub(super) fn advance(&mut self, now: Duration) {
        while let Some(&(until, slot, prefix)) = self.assumed.front()
            && until <= now
        {
            self.assumed.pop_front();
            if let Some(holder) = self.find(slot, &prefix)
                && holder.assumed.is_some_and(|until| until <= now)
            {
                holder.assumed = None;
                self.tidy(slot, &prefix);
            }
        }
    }

    /// How many prefixes are known of anywhere.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.holders.len()
    }

    /// How many prefixes a replica holds, as far as is known.
    pub(super) fn count(&self, slot: Slot) -> usize {
        self.of.get(&slot).map_or(0, |known| known.prefixes.len())
    }

    fn set_unreported(&mut self, slot: Slot, prefix: &PrefixDigest) {
        let Some(holder) = self.find(slot, prefix) else { return };
        holder.assumed = None;
        if std::mem::take(&mut holder.reported)
            && let Some(known) = self.of.get_mut(&slot)
        {
            known.reported -= 1;
        }
        self.tidy(slot, prefix);
    }

    fn find(&mut self, slot: Slot, prefix: &PrefixDigest) -> Option<&mut Holder> {
        self.holders.get_mut(prefix)?.iter_mut().find(|holder| holder.slot == slot)
    }

    fn entry(&mut self, slot: Slot, prefix: &PrefixDigest) -> &mut Holder {
        let holders = self.holders.entry(*prefix).or_default();
        let place = holders.iter().position(|holder| holder.slot == slot);
        let place = place.unwrap_or_else(|| {
            self.of.entry(slot).or_default().prefixes.insert(*prefix);
            let (reported, assumed, items, charged) = (false, None, 0, Cost::ZERO);
            holders.push(Holder { slot, reported, assumed, items, charged });
            holders.len() - 1
        });
        &mut holders[place]
    }

    /// Drops a holder that no longer is one.
    fn tidy(&mut self, slot: Slot, prefix: &PrefixDigest) {
        let Some(holders) = self.holders.get_mut(prefix) else { return };
        let before = holders.len();
        holders.retain(|holder| {
            holder.slot != slot || holder.reported || holder.assumed.is_some() || holder.items > 0
        });
        if holders.len() < before
            && let Some(known) = self.of.get_mut(&slot)
        {
            known.prefixes.remove(prefix);
        }
        if holders.is_empty() {
            self.holders.remove(prefix);
        }
    }
}
