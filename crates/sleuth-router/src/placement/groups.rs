use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::cost::Cost;
use super::fleet::{Fleet, Slot};
use super::{GroupKey, Reason};

/// Where a group's members go.
#[derive(Debug)]
pub(super) struct Group {
    /// Tells a group from one of the same name that was forgotten.
    serial: u64,
    pub(super) version: Option<Arc<str>>,
    pub(super) parts: Vec<Part>,
    /// Members to come in all; 0 if unknown.
    pub(super) size: u32,
    pub(super) seen: u32,
    /// What is reserved for one.
    pub(super) member: Cost,
    reserved_until: Duration,
    remembered_until: Duration,
}

/// A group's members on one replica.
#[derive(Debug)]
pub(super) struct Part {
    /// Tells it from any other part there was.
    pub(super) id: u64,
    pub(super) slot: Slot,
    /// What the replica answered with by default when the first of those that are out was sent, if
    /// it was known.
    pub(super) version: Option<Arc<str>>,
    /// Seconds that this part should get of the group's cost.
    pub(super) share: f64,
    /// Seconds that it got.
    pub(super) given: f64,
    /// For members that have not come.
    pub(super) reserved: Cost,
    /// Members without an end.
    pub(super) out: usize,
    /// Takes no more members; those that are out may still answer.
    pub(super) closed: bool,
    /// Why it was opened, until its first member comes.
    pub(super) opened: Option<Reason>,
}

/// The groups that are remembered.
#[derive(Debug, Default)]
pub(super) struct Groups {
    known: HashMap<Arc<GroupKey>, Group>,
    next_serial: u64,
    next_part: u64,
    /// Of each group at most one entry, which may be earlier than what the group says.
    reservations: VecDeque<(Duration, Arc<GroupKey>, u64)>,
    memory: VecDeque<(Duration, Arc<GroupKey>, u64)>,
}

/// How long things last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) reservation: Duration,
    pub(super) memory: Duration,
    pub(super) most: usize,
}

/// How many groups are spared at a time because something of them is out there or came lately.
const SPARED: usize = 8;

// === impl Part ===

impl Part {
    pub(super) fn new(
        id: u64,
        slot: Slot,
        version: Option<Arc<str>>,
        share: f64,
        reason: Reason,
    ) -> Self {
        let (given, reserved, out, closed) = (0.0, Cost::ZERO, 0, false);
        Self { id, slot, version, share, given, reserved, out, closed, opened: Some(reason) }
    }
}

// === impl Group ===

impl Group {
    pub(super) fn out(&self) -> usize {
        self.parts.iter().map(|part| part.out).sum()
    }

    pub(super) fn has_reserved(&self) -> bool {
        self.parts.iter().any(|part| part.reserved > Cost::ZERO)
    }

    /// Starts anew elsewhere: what is out there may still answer, with the version it was sent for.
    pub(super) fn close(&mut self, fleet: &mut Fleet) {
        self.unreserve(fleet);
        self.parts.retain(|part| part.out > 0);
        for part in &mut self.parts {
            part.closed = true;
            part.version = self.version.clone().or_else(|| part.version.take());
        }
    }

    /// Moves a part's reservation to `seconds`.
    pub(super) fn reserve(part: &mut Part, seconds: f64, fleet: &mut Fleet) {
        fleet.unreserve(part.slot, part.reserved);
        part.reserved = Cost::from_seconds(seconds);
        fleet.reserve(part.slot, part.reserved);
    }

    /// Gives back what is reserved.
    pub(super) fn unreserve(&mut self, fleet: &mut Fleet) {
        for part in &mut self.parts {
            fleet.unreserve(part.slot, std::mem::take(&mut part.reserved));
        }
    }

    /// A member goes to a part: what was reserved for it becomes what is out there. Returns why the
    /// part was opened, if this is its first.
    pub(super) fn member_sent(
        &mut self,
        place: usize,
        seconds: f64,
        fleet: &mut Fleet,
    ) -> Option<Reason> {
        self.seen = self.seen.saturating_add(1);
        let part = &mut self.parts[place];
        part.given += seconds;
        part.out += 1;
        let converted = self.member.min(part.reserved);
        part.reserved.take(converted);
        fleet.unreserve(part.slot, converted);
        let opened = part.opened.take();
        if self.size > 0 && self.seen >= self.size {
            self.unreserve(fleet);
        }
        opened
    }
}

// === impl Groups ===

impl Groups {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Entries of what is to be looked at in time.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.reservations.len() + self.memory.len()
    }

    pub(super) fn get(&self, key: &GroupKey) -> Option<&Group> {
        self.known.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &GroupKey) -> Option<&mut Group> {
        self.known.get_mut(key)
    }

    /// The shared name of a group, where it is known.
    pub(super) fn name(&self, key: &GroupKey) -> Option<Arc<GroupKey>> {
        self.known.get_key_value(key).map(|(key, _)| Arc::clone(key))
    }

    /// The name of a new part.
    pub(super) fn next_part(&mut self) -> u64 {
        self.next_part += 1;
        self.next_part
    }

    /// Takes a new group in, without parts.
    pub(super) fn insert(
        &mut self,
        key: &GroupKey,
        (size, member): (u32, Cost),
        version: Option<Arc<str>>,
        terms: Terms,
        now: Duration,
        fleet: &mut Fleet,
    ) -> &mut Group {
        self.make_room(terms, fleet);
        self.next_serial += 1;
        let (key, serial) = (Arc::new(key.clone()), self.next_serial);
        let (reserved_until, remembered_until) = (now + terms.reservation, now + terms.memory);
        if size > 1 {
            self.reservations.push_back((reserved_until, Arc::clone(&key), serial));
        }
        self.memory.push_back((remembered_until, Arc::clone(&key), serial));
        let (parts, seen) = (Vec::new(), 0);
        self.known.entry(key).or_insert(Group {
            serial,
            version,
            parts,
            size,
            seen,
            member,
            reserved_until,
            remembered_until,
        })
    }

    /// A member of the group came.
    pub(super) fn touch(&mut self, key: &GroupKey, terms: Terms, now: Duration) {
        if let Some(group) = self.known.get_mut(key) {
            group.reserved_until = now + terms.reservation;
            group.remembered_until = now + terms.memory;
        }
    }

    /// A member ended.
    pub(super) fn ended(&mut self, key: &GroupKey, part: u64) {
        let group = self.known.get_mut(key);
        let part = group.and_then(|group| group.parts.iter_mut().find(|known| known.id == part));
        if let Some(part) = part {
            part.out = part.out.saturating_sub(1);
        }
    }

    /// Gives back what was reserved for members that do not come, and forgets old groups.
    pub(super) fn advance(&mut self, terms: Terms, now: Duration, fleet: &mut Fleet) {
        while let Some((_, key, serial)) = pop_due(&mut self.reservations, now) {
            let Some(group) = self.known.get_mut(&key).filter(|group| group.serial == serial)
            else {
                continue;
            };
            if group.reserved_until <= now {
                group.unreserve(fleet);
            } else if group.has_reserved() {
                self.reservations.push_back((group.reserved_until, key, serial));
            }
        }
        while let Some((_, key, serial)) = pop_due(&mut self.memory, now) {
            let Some(group) = self.known.get(&key) else { continue };
            if group.remembered_until > now || group.out() > 0 {
                let until = group.remembered_until.max(now + terms.memory / 8);
                self.memory.push_back((until, key, serial));
            } else {
                self.remove(&key, fleet);
            }
        }
    }

    /// Forgets groups until one more may come in: the longest unused, and rather those of which
    /// nothing is out there.
    fn make_room(&mut self, terms: Terms, fleet: &mut Fleet) {
        let mut spared = 0;
        while self.known.len() >= terms.most.max(1)
            && let Some((until, key, serial)) = self.memory.pop_front()
        {
            let group = self.known.get(&key);
            let used = group.is_some_and(|group| group.remembered_until > until || group.out() > 0);
            if used && spared < SPARED {
                spared += 1;
                let until = group.map_or(until, |group| group.remembered_until);
                self.memory.push_back((until, key, serial));
            } else {
                self.remove(&key, fleet);
            }
        }
        if self.reservations.len() > terms.most.saturating_mul(2) {
            let known = &self.known;
            self.reservations
                .retain(|(_, key, serial)| known.get(key).is_some_and(|g| g.serial == *serial));
        }
    }

    fn remove(&mut self, key: &GroupKey, fleet: &mut Fleet) {
        if let Some(mut group) = self.known.remove(key) {
            group.unreserve(fleet);
        }
    }
}

fn pop_due<T>(
    queue: &mut VecDeque<(Duration, T, u64)>,
    now: Duration,
) -> Option<(Duration, T, u64)> {
    if queue.front()?.0 <= now { queue.pop_front() } else { None }
}
