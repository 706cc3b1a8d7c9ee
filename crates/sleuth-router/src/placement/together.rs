use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::cost::Cost;
use super::{Ask, GroupKey, Placed, Placement, PrefixDigest, Unplaced};

/// What belongs together.
#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Group(&'a GroupKey),
    Prefix(PrefixDigest),
}

/// Items that belong together.
#[derive(Clone, Copy)]
struct Sum {
    /// Which of the sums came first.
    place: usize,
    /// Where they go is not decided.
    is_new: bool,
    count: u32,
    seconds: f64,
    /// Members that the hints promise beyond those, and what they say of one.
    size: u32,
    hint: f64,
    /// Seconds for the prefix.
    prefix: f64,
}

// === impl Placement ===

impl Placement {
    /// How long an item may be held back to be placed with others that are about to come: until
    /// some replica might run out of work, and never for longer than the settings say; not at all
    /// if its group or prefix has a place. Ask again when something ends.
    pub fn patience(&mut self, ask: &Ask<'_>, now: Duration) -> Duration {
        self.advance(now);
        if !self.is_new(ask) {
            return Duration::ZERO;
        }
        let loads = self.fleet.iter().filter_map(|(_, replica)| {
            let weight = replica.weight(self.now, self.settings.slow_start);
            (weight > 0.0 && !replica.draining).then(|| replica.load(self.now))
        });
        // Half of it, as the load is predicted and part of it may be done.
        let least = loads.fold(f64::INFINITY, f64::min) / 2.0;
        let most = self.settings.gather;
        Duration::try_from_secs_f64(least).map_or(most, |least| least.min(most))
    }

    /// Places items that have come together; the results are in their order.
    ///
    /// First those of groups and prefixes that have a place. Then group by group, the costliest
    /// first, as small ones at the end even out what large ones at the end would not; and by what
    /// the members that are there really cost.
    pub fn place_together(
        &mut self,
        asks: &[Ask<'_>],
        now: Duration,
    ) -> Vec<Result<Placed, Unplaced>> {
        self.advance(now);
        let sums = self.sums(asks);
        let sum = |place: usize| sums.get(&Key::of(&asks[place])).copied();
        let key = |&place: &usize| {
            let sum = sum(place);
            let cost = sum.map_or(0.0, |sum| sum.cost());
            (
                sum.is_some_and(|sum| sum.is_new),
                Reverse(Cost::from_seconds(cost)),
                sum.map(|s| s.place),
            )
        };
        let mut order: Vec<usize> = (0..asks.len()).collect();
        order.sort_by_cached_key(key);
        let mut placed: Vec<Result<Placed, Unplaced>> =
            asks.iter().map(|_| Err(Unplaced::NoReplicas)).collect();
        self.waiting = sums.values().filter(|sum| sum.is_new).map(Sum::with_prefix).sum();
        let mut counted = HashSet::new();
        for place in order {
            let mut ask = asks[place];
            if let Some(sum) = sum(place).filter(|sum| sum.is_new)
                && counted.insert(sum.place)
            {
                self.waiting -= sum.with_prefix();
            }
            if let (Some(group), Some(sum)) = (&mut ask.group, sum(place)) {
                // A group of unknown size has at least those that are there.
                group.size = sum.size.max(sum.count);
                group.item_cost = sum.cost() / f64::from(group.size);
            }
            placed[place] = self.place_item(&ask);
        }
        self.waiting = 0.0;
        placed
    }

    /// Whether where it goes is open.
    fn is_new(&self, ask: &Ask<'_>) -> bool {
        ask.group.map_or_else(
            || !self.residency.is_anywhere(&ask.prefix),
            |group| self.groups.get(group.key).is_none(),
        )
    }

    fn sums<'a>(&self, asks: &[Ask<'a>]) -> HashMap<Key<'a>, Sum> {
        let mut sums: HashMap<Key<'a>, Sum> = HashMap::new();
        for ask in asks {
            let place = sums.len();
            let sum = sums.entry(Key::of(ask)).or_insert_with(|| {
                let (size, hint) =
                    ask.group.map_or((0, 0.0), |group| (group.size, group.item_cost));
                let hint = if hint > 0.0 { hint } else { ask.item_cost };
                let is_new = self.is_new(ask);
                let prefix = Cost::from_seconds(ask.prefix_cost).seconds();
                Sum { place, is_new, count: 0, seconds: 0.0, size, hint, prefix }
            });
            sum.count += 1;
            sum.seconds += Cost::from_seconds(ask.item_cost).seconds();
        }
        sums
    }
}

// === impl Sum ===

impl Sum {
    fn with_prefix(&self) -> f64 {
        self.cost() + self.prefix
    }

    /// Seconds of those that are there, and of those to come by the hints.
    fn cost(&self) -> f64 {
        let to_come = self.size.saturating_sub(self.count);
        self.seconds + Cost::from_seconds(self.hint * f64::from(to_come)).seconds()
    }
}

// === impl Key ===

impl<'a> Key<'a> {
    fn of(ask: &Ask<'a>) -> Self {
        ask.group.map_or(Self::Prefix(ask.prefix), |group| Self::Group(group.key))
    }
}
