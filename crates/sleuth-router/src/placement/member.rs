use std::sync::Arc;

use super::choose::{self, Candidate};
use super::cost::Cost;
use super::fleet::Slot;
use super::groups::{Group, Part};
use super::item::Pool;
use super::{Ask, AskGroup, Placed, Placement, Reason, Unplaced};

// === impl Placement ===

impl Placement {
    /// Later members follow the first, unless that fails or no longer pays.
    pub(super) fn place_member(
        &mut self,
        ask: &Ask<'_>,
        asked: AskGroup<'_>,
    ) -> Result<Placed, Unplaced> {
        self.require(ask, asked)?;
        if let Some(place) = self.usable_part(ask, asked, true) {
            let place = self.split_late(ask, asked, place).unwrap_or(place);
            return self.send_member(ask, asked, place);
        }
        let version = self.groups.get(asked.key).and_then(|group| group.version.clone());
        let pool = self.pool(ask, version.as_deref())?;
        if pool.exhausted
            && let Some(place) = self.usable_part(ask, asked, false)
        {
            return self.send_member(ask, asked, place);
        }
        let place = self.reopen(ask, asked, pool)?;
        self.send_member(ask, asked, place)
    }

    /// Makes sure that whatever is out there of the group answers as this member will.
    fn require(&mut self, ask: &Ask<'_>, asked: AskGroup<'_>) -> Result<(), Unplaced> {
        let Some(group) = self.groups.get_mut(asked.key) else { return Ok(()) };
        if group.version.is_none() {
            // The replica may have another default by now than the members that are out there got.
            let default = |slot| self.fleet.get(slot).and_then(|replica| replica.versions.first());
            let mut out = group.parts.iter().filter(|part| part.out > 0);
            let changed = out.find(|part| default(part.slot) != part.version.as_ref());
            group.version = changed.and_then(|part| part.version.clone());
        }
        let Some(wanted) = ask.version else { return Ok(()) };
        if group.version.is_none() {
            let out = group.parts.iter().filter(|part| part.out > 0);
            if out.map(|part| part.version.as_deref()).any(|version| version != Some(wanted)) {
                return Err(Unplaced::NoneWithVersion);
            }
            group.version = Some(Arc::from(wanted));
        }
        if group.version.as_deref() == Some(wanted) {
            Ok(())
        } else {
            Err(Unplaced::NoneWithVersion)
        }
    }

    /// The part whose turn it is, among those on replicas that take the group's items. `fresh`:
    /// not where the item failed.
    fn usable_part(&self, ask: &Ask<'_>, asked: AskGroup<'_>, fresh: bool) -> Option<usize> {
        let group = self.groups.get(asked.key)?;
        let is_usable = |part: &Part| {
            let Some(replica) = self.fleet.get(part.slot).filter(|_| !part.closed) else {
                return false;
            };
            let version = group.version.as_deref();
            !(replica.draining
                || replica.weight(self.now, self.settings.slow_start) <= 0.0
                || fresh && ask.avoid.contains(&replica.id)
                || version.and_then(|version| replica.offers(version)) == Some(false))
        };
        let turn = |part: &Part| {
            let load = self.fleet.get(part.slot).map_or(0.0, |replica| replica.load(self.now));
            // Parts without a share take what comes by load, after those that have one.
            let given = if part.share > 0.0 { part.given / part.share } else { f64::INFINITY };
            (given, load)
        };
        let usable = group.parts.iter().enumerate().filter(|(_, part)| is_usable(part));
        let turns = usable.map(|(place, part)| (turn(part), place));
        let least = turns.min_by(|a, b| a.0.0.total_cmp(&b.0.0).then(a.0.1.total_cmp(&b.0.1)));
        least.map(|(_, place)| place)
    }

    /// Opens another part if this member and those to come would be stragglers where they are.
    fn split_late(&mut self, ask: &Ask<'_>, asked: AskGroup<'_>, home: usize) -> Option<usize> {
        let group = self.groups.get(asked.key)?;
        let version = group.version.clone();
        let offered = version.or_else(|| group.parts[home].version.clone())?;
        if !(ask.splittable || group.version.is_some()) {
            return None;
        }
        let slot = group.parts[home].slot;
        let load = self.fleet.get(slot)?.load(self.now);
        let replicas = self.fleet.len();
        let mean = (self.fleet.out() + self.waiting) / replicas as f64;
        // No need to look at all replicas if this one has no more than it should in the end.
        if load <= self.expected(mean, replicas).unwrap_or(mean).max(mean) {
            return None;
        }
        let pool = self.pool(ask, Some(&offered)).ok()?;
        let place = self.better_than(ask, &pool, slot)?;
        let one = pool.candidates[place];
        let known = self.groups.get(asked.key)?.parts.iter();
        let known = known.clone().position(|part| part.slot == one.slot && !part.closed);
        if known.is_some() {
            let is_planned = self.groups.get(asked.key)?.has_reserved();
            self.spread(asked, &pool);
            return if is_planned { self.usable_part(ask, asked, true) } else { known };
        }
        self.groups.get_mut(asked.key)?.version = Some(offered);
        let place = self.open_part(asked, one.slot, 0.0, Reason::Split)?;
        self.spread(asked, &pool);
        Some(place)
    }

    /// A replica where the item would be done so much earlier that it is worth the prefix.
    fn better_than(&self, ask: &Ask<'_>, pool: &Pool, slot: Slot) -> Option<usize> {
        let item = Cost::from_seconds(ask.item_cost).seconds();
        let terms = self.terms(&pool.candidates, item);
        let home = pool.candidates.iter().position(|one| one.slot == slot)?;
        let finish = pool.candidates[home].finish(item);
        let finishes = pool.candidates.iter().map(|one| one.finish(item)).enumerate();
        let (best, earliest) = finishes.min_by(|a, b| a.1.total_cmp(&b.1))?;
        let price = terms.gain * pool.candidates[best].prefix + item;
        (finish - earliest.max(terms.level) > price).then_some(best)
    }

    /// Spreads what is reserved over the parts anew.
    fn spread(&mut self, asked: AskGroup<'_>, pool: &Pool) {
        let Some(group) = self.groups.get_mut(asked.key) else { return };
        let mut bases = Vec::new();
        let mut places = Vec::new();
        for (place, part) in group.parts.iter().enumerate().filter(|(_, part)| !part.closed) {
            if let Some(one) = pool.candidates.iter().find(|one| one.slot == part.slot) {
                let load = (one.load - part.reserved.seconds() / one.weight).max(0.0);
                bases.push(Candidate { load, ..*one });
                places.push(place);
            }
        }
        let reserved: f64 = places.iter().map(|&at| group.parts[at].reserved.seconds()).sum();
        let all: Vec<usize> = (0..bases.len()).collect();
        for (base, seconds) in choose::fill(&bases, &all, reserved) {
            let part = &mut group.parts[places[base]];
            Group::reserve(part, seconds, &mut self.fleet);
            part.share = part.given + seconds;
        }
    }

    /// Opens a part for a member that can go to none of those there are, and for those to come.
    fn reopen(
        &mut self,
        ask: &Ask<'_>,
        asked: AskGroup<'_>,
        pool: Pool,
    ) -> Result<usize, Unplaced> {
        let Some(group) = self.groups.get(asked.key) else { return Err(Unplaced::NoReplicas) };
        let mut pool = pool;
        let moved = group.parts.iter().any(|part| part.out > 0 || part.opened.is_none());
        if group.version.is_none() && group.out() > 0 {
            // What is out there answers with what the replica had when it was sent.
            let mut versions =
                group.parts.iter().filter(|part| part.out > 0).map(|part| &part.version);
            let version =
                versions.next().and_then(Clone::clone).ok_or(Unplaced::NoneWithVersion)?;
            if versions.any(|other| other.as_ref() != Some(&version)) {
                return Err(Unplaced::NoneWithVersion);
            }
            pool = self.pool(ask, Some(&version))?;
            if let Some(group) = self.groups.get_mut(asked.key) {
                group.version = Some(version);
            }
        }
        let rest = self.unusable_reserved(ask, asked);
        if let Some(group) = self.groups.get_mut(asked.key).filter(|group| group.version.is_none())
        {
            // It has to stay together, wherever that is now.
            group.close(&mut self.fleet);
        }
        let (place, reason) = self.whole(&pool, rest.max(ask.item_cost))?;
        let reason = if moved { Reason::Failover } else { reason };
        let slot = pool.candidates[place].slot;
        let known = self.groups.get(asked.key).into_iter().flat_map(|group| &group.parts);
        let known = known.clone().position(|part| part.slot == slot && !part.closed);
        let place = match known {
            Some(place) => Some(place),
            None => self.open_part(asked, slot, rest, reason),
        };
        place.ok_or(Unplaced::NoReplicas)
    }

    /// Gives back what is reserved where members cannot go, and says how many seconds that is.
    fn unusable_reserved(&mut self, ask: &Ask<'_>, asked: AskGroup<'_>) -> f64 {
        let Some(group) = self.groups.get_mut(asked.key) else { return 0.0 };
        let mut seconds = 0.0;
        for part in &mut group.parts {
            let replica = self.fleet.get(part.slot);
            // One that only this item failed on keeps what is reserved there.
            let is_lost = replica.is_none_or(|replica| {
                replica.draining || replica.weight(self.now, self.settings.slow_start) <= 0.0
            });
            if is_lost || !replica.is_some_and(|replica| ask.avoid.contains(&replica.id)) {
                seconds += part.reserved.seconds();
                Group::reserve(part, 0.0, &mut self.fleet);
            }
        }
        seconds
    }
}
