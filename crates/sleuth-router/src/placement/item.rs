use std::sync::Arc;

use super::choose::{self, Candidate, Choice, Terms};
use super::cost::Cost;
use super::fleet::{Replica, Slot};
use super::groups::{Group, Part};
use super::{Ask, AskGroup, Placed, Placement, Reason, Ticket, Unplaced};

/// Who may take an item.
pub(super) struct Pool {
    /// Never empty.
    pub(super) candidates: Vec<Candidate>,
    /// Some others are left out as the item failed on them.
    avoids: bool,
    /// The item failed on all of them.
    pub(super) exhausted: bool,
}

// === impl Placement ===

impl Placement {
    pub(super) fn place_item(&mut self, ask: &Ask<'_>) -> Result<Placed, Unplaced> {
        if let Some(placed) = self.place_again(ask) {
            return placed;
        }
        match ask.group {
            None => self.place_alone(ask),
            Some(group) if self.groups.get(group.key).is_some() => self.place_member(ask, group),
            Some(group) => self.place_first(ask, group),
        }
    }

    /// An item that comes once more goes where it went before, if that can be.
    fn place_again(&mut self, ask: &Ask<'_>) -> Option<Result<Placed, Unplaced>> {
        let slot = self.fleet.slot(ask.before?)?;
        let takes = |pool: &Pool| pool.candidates.iter().any(|one| one.slot == slot);
        let Some(asked) = ask.group else {
            takes(&self.pool(ask, ask.version).ok()?).then_some(())?;
            let version = ask.version.map(Arc::from);
            return Some(self.send(ask, slot, Reason::Rendezvous, version, None));
        };
        let group = self.groups.get(asked.key)?;
        let part = group.parts.iter().position(|part| part.slot == slot && !part.closed)?;
        let version = group.version.clone();
        takes(&self.pool(ask, version.as_deref().or(ask.version)).ok()?).then_some(())?;
        Some(self.send_member(ask, asked, part))
    }

    fn place_alone(&mut self, ask: &Ask<'_>) -> Result<Placed, Unplaced> {
        let pool = self.pool(ask, ask.version)?;
        let (place, reason) = self.whole(&pool, ask.item_cost)?;
        self.observe(1, ask.item_cost, &pool);
        self.send(ask, pool.candidates[place].slot, reason, ask.version.map(Arc::from), None)
    }

    /// The first item of a group decides where all of it goes.
    fn place_first(&mut self, ask: &Ask<'_>, asked: AskGroup<'_>) -> Result<Placed, Unplaced> {
        let pool = self.pool(ask, ask.version)?;
        let member = if asked.item_cost > 0.0 { asked.item_cost } else { ask.item_cost };
        let own = Cost::from_seconds(member * f64::from(asked.size.max(1))).seconds();
        let (home, reason) = self.whole(&pool, own)?;
        let mut version = ask.version.map(Arc::<str>::from);
        let mut parts = vec![(pool.candidates[home], own)];
        if ask.splittable && asked.size > 1 {
            let offered = version.clone().or_else(|| self.default_version(parts[0].0.slot));
            if let Some(split) = self.split(&pool, home, (own, member), offered.as_deref()) {
                (parts, version) = (split, offered);
            }
        }
        self.observe(asked.size.max(1), own, &pool);
        let home = parts.iter().position(|(one, _)| one.slot == pool.candidates[home].slot);
        // The parts may do without the first choice, if it has much to do.
        let reason = match home {
            None if reason != Reason::Failover => Reason::Spilled,
            _ => reason,
        };
        let home = home.unwrap_or(0);
        let sizes = (asked.size, Cost::from_seconds(member));
        let terms = self.settings.group_terms();
        self.groups.insert(asked.key, sizes, version, terms, self.now, &mut self.fleet);
        for (place, (one, share)) in parts.into_iter().enumerate() {
            let reason = if place == home { reason } else { Reason::Split };
            let reserved = if asked.size > 1 { share } else { 0.0 };
            self.open_part(asked, one.slot, reserved, reason);
        }
        self.send_member(ask, asked, home)
    }

    /// Replicas that take items, answer with the version, and that the item has not failed on.
    pub(super) fn pool(&self, ask: &Ask<'_>, version: Option<&str>) -> Result<Pool, Unplaced> {
        if self.fleet.len() == 0 {
            return Err(Unplaced::NoReplicas);
        }
        let (mut draining, mut unhealthy, mut unknown) = (0, 0, Vec::new());
        let mut candidates = Vec::with_capacity(self.fleet.len());
        for (slot, replica) in self.fleet.iter() {
            let weight = replica.weight(self.now, self.settings.slow_start);
            if replica.draining {
                draining += 1;
            } else if weight <= 0.0 {
                unhealthy += 1;
            } else {
                let candidate = self.candidate(ask, slot, replica, weight);
                match version.map_or(Some(true), |version| replica.offers(version)) {
                    Some(true) => candidates.push(candidate),
                    Some(false) => {}
                    None => unknown.push(candidate),
                }
            }
        }
        if draining + unhealthy == self.fleet.len() {
            return Err(Unplaced::NoneAvailable { draining, unhealthy });
        }
        if candidates.is_empty() {
            // Who never reported refuses the version itself if it has another.
            candidates = unknown;
        }
        if candidates.is_empty() {
            return Err(Unplaced::NoneWithVersion);
        }
        let avoided = |one: &Candidate| {
            let id = self.fleet.get(one.slot).map(|replica| &replica.id);
            ask.avoid.iter().any(|avoid| Some(avoid) == id)
        };
        let fresh: Vec<Candidate> =
            candidates.iter().copied().filter(|one| !avoided(one)).collect();
        let (avoids, exhausted) = (fresh.len() < candidates.len(), fresh.is_empty());
        let candidates = if exhausted { candidates } else { fresh };
        Ok(Pool { candidates, avoids, exhausted })
    }

    fn candidate(&self, ask: &Ask<'_>, slot: Slot, replica: &Replica, weight: f64) -> Candidate {
        let is_held = self.residency.is_held(slot, &ask.prefix);
        // Something, so that even a free prefix is not taken for one that is there.
        let prefix = Cost::from_seconds(ask.prefix_cost).seconds().max(1e-9);
        let speed = replica.speed(weight);
        Candidate {
            slot,
            weight: speed,
            load: replica.load(self.now) / weight,
            prefix: if is_held { 0.0 } else { prefix / speed },
            rank: replica.rank(&ask.prefix, weight),
        }
    }

    pub(super) fn whole(&self, pool: &Pool, own: f64) -> Result<(usize, Reason), Unplaced> {
        let own = Cost::from_seconds(own).seconds();
        let mut terms = self.terms(&pool.candidates, own);
        terms.gain = self.settings.split_gain;
        let chosen = choose::whole(&pool.candidates, own, terms);
        let (place, choice) = chosen.ok_or(Unplaced::NoReplicas)?;
        let reason = match choice {
            Choice::Resident => Reason::Resident,
            _ if pool.avoids => Reason::Failover,
            Choice::First => Reason::Rendezvous,
            Choice::Lower => Reason::Spilled,
        };
        Ok((place, reason))
    }

    /// The parts that a new group is worth to be split into, among replicas that are known to
    /// answer with the version.
    fn split(
        &self,
        pool: &Pool,
        home: usize,
        (own, member): (f64, f64),
        version: Option<&str>,
    ) -> Option<Vec<(Candidate, f64)>> {
        let version = version?;
        let offers = |one: &Candidate| {
            self.fleet.get(one.slot).and_then(|replica| replica.offers(version)) == Some(true)
        };
        let terms = self.terms(&pool.candidates, own);
        let whole = pool.candidates[home].finish(own);
        let able: Vec<Candidate> = pool.candidates.iter().copied().filter(offers).collect();
        let parts = choose::split(&able, own, member, whole, terms)?;
        Some(parts.into_iter().map(|(place, share)| (able[place], share)).collect())
    }

    pub(super) fn terms(&self, candidates: &[Candidate], own: f64) -> Terms {
        let settings = &self.settings;
        let mean = choose::mean(candidates);
        let expected = self.expected(mean, candidates.len());
        let first =
            if expected.is_some() { settings.split_gain } else { settings.first_split_gain };
        Terms {
            load_bound: settings.load_bound.max(1.0),
            finish_slack: settings.finish_slack.max(0.0),
            gain: first.max(0.0),
            level: (choose::mean_after(candidates, own) + self.waiting_for(candidates))
                .max(expected.unwrap_or(0.0)),
        }
    }

    pub(super) fn expected(&self, mean: f64, replicas: usize) -> Option<f64> {
        self.horizon.expected(mean, replicas, self.now, self.settings.burst_memory)
    }

    /// What each of these gets of what is about to be placed.
    fn waiting_for(&self, candidates: &[Candidate]) -> f64 {
        self.waiting.max(0.0) / candidates.iter().map(|one| one.weight).sum::<f64>().max(1e-9)
    }

    /// Takes note of work that comes to these replicas.
    fn observe(&mut self, items: u32, own: f64, pool: &Pool) {
        let own = Cost::from_seconds(own).seconds();
        let before = choose::mean_after(&pool.candidates, 0.0) * pool.candidates.len() as f64;
        let mean = choose::mean_after(&pool.candidates, own);
        let after = mean * pool.candidates.len() as f64;
        let prefix = pool.candidates.iter().map(|one| one.prefix).fold(f64::INFINITY, f64::min);
        self.horizon.placed(items, after - before + prefix, mean, self.fleet.out() + own);
    }

    /// Adds a part to a group, with so much reserved.
    pub(super) fn open_part(
        &mut self,
        asked: AskGroup<'_>,
        slot: Slot,
        reserved: f64,
        reason: Reason,
    ) -> Option<usize> {
        let version = self.default_version(slot);
        let id = self.groups.next_part();
        let group = self.groups.get_mut(asked.key)?;
        // Of replicas that have left, only what may still answer is of interest.
        group.parts.retain(|part| part.out > 0 || self.fleet.get(part.slot).is_some());
        let mut part = Part::new(id, slot, version, reserved, reason);
        Group::reserve(&mut part, reserved, &mut self.fleet);
        group.parts.push(part);
        Some(group.parts.len() - 1)
    }

    pub(super) fn send_member(
        &mut self,
        ask: &Ask<'_>,
        asked: AskGroup<'_>,
        place: usize,
    ) -> Result<Placed, Unplaced> {
        let (now, terms) = (self.now, self.settings.group_terms());
        self.groups.touch(asked.key, terms, now);
        let key = self.groups.name(asked.key).ok_or(Unplaced::NoReplicas)?;
        let group = self.groups.get_mut(asked.key).ok_or(Unplaced::NoReplicas)?;
        let seconds = Cost::from_seconds(ask.item_cost).seconds();
        let is_again = group.version.is_none() && group.seen > 0 && group.out() == 0;
        let part = &mut group.parts[place];
        if part.out == 0 {
            // Nothing is out there that got another default.
            part.version = self.fleet.get(part.slot).and_then(|one| one.versions.first().cloned());
        }
        if is_again {
            // Replicas may remember what the group began with, which is not to be relied on.
            group.version.clone_from(&part.version);
        }
        // What was reserved is in the horizon; all of the item is where nothing was.
        let (expected, known) = (group.member.seconds(), group.size > 0 || group.seen == 0);
        let opened = group.member_sent(place, seconds, &mut self.fleet);
        if known {
            self.horizon.corrected(seconds - expected);
        } else {
            self.horizon.placed(1, seconds, 0.0, 0.0);
        }
        let (part, version) = (&group.parts[place], group.version.clone());
        let (slot, id) = (part.slot, part.id);
        let reason = opened.unwrap_or(Reason::Group);
        self.send(ask, slot, reason, version, Some((key, id)))
    }

    fn send(
        &mut self,
        ask: &Ask<'_>,
        slot: Slot,
        reason: Reason,
        version: Option<Arc<str>>,
        group: Option<(Arc<super::GroupKey>, u64)>,
    ) -> Result<Placed, Unplaced> {
        let replica = self.fleet.get(slot).map(|replica| replica.id.clone());
        let replica = replica.ok_or(Unplaced::NoReplicas)?;
        let is_held = self.residency.is_held(slot, &ask.prefix);
        let reason = if is_held && reason != Reason::Group { Reason::Resident } else { reason };
        let cost = Cost::from_seconds(ask.item_cost);
        let mut sent = self.residency.sent(slot, &ask.prefix, Cost::from_seconds(ask.prefix_cost));
        sent.add(cost);
        self.fleet.send(slot, sent, reason, self.now);
        let ticket = Ticket { slot, cost, prefix: ask.prefix, group };
        Ok(Placed { replica, version, reason, ticket })
    }

    fn default_version(&self, slot: Slot) -> Option<Arc<str>> {
        self.fleet.get(slot)?.versions.first().cloned()
    }
}
