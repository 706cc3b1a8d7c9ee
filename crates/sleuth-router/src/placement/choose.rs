//! Where work should go, given what every candidate has to do before. Seconds throughout.

use super::fleet::Slot;

/// A replica that may take the work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) slot: Slot,
    /// What it does of a whole replica's work. Above 0.
    pub(super) weight: f64,
    /// What is before the work, stretched by the weight.
    pub(super) load: f64,
    /// What the prefix costs there, stretched by the weight: 0 where it is held.
    pub(super) prefix: f64,
    /// Higher where the prefix should be.
    pub(super) rank: f64,
}

/// What decides beside the candidates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) load_bound: f64,
    pub(super) finish_slack: f64,
    /// Seconds to be won per second that is spent on computing a prefix again.
    pub(super) gain: f64,
    /// What every replica is expected to have in the end: who finishes earlier wins nothing.
    pub(super) level: f64,
}

/// Why a candidate was chosen for a whole group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// It holds the prefix.
    Resident,
    /// No other is ranked higher.
    First,
    /// Others that are ranked higher have too much to do.
    Lower,
}

// === impl Candidate ===

impl Candidate {
    /// When the members' own work could begin.
    pub(super) fn start(&self) -> f64 {
        self.load + self.prefix
    }

    /// When work that takes `own` seconds of a whole replica would be done.
    pub(super) fn finish(&self, own: f64) -> f64 {
        self.start() + own / self.weight
    }
}

/// The mean load.
pub(super) fn mean(candidates: &[Candidate]) -> f64 {
    let weights: f64 = candidates.iter().map(|one| one.weight).sum();
    let loads: f64 = candidates.iter().map(|one| one.load * one.weight).sum();
    if weights > 0.0 { loads / weights } else { 0.0 }
}

/// The mean load when `own` seconds are added with the cheapest prefix.
pub(super) fn mean_after(candidates: &[Candidate], own: f64) -> f64 {
    let weights: f64 = candidates.iter().map(|one| one.weight).sum();
    let loads: f64 = candidates.iter().map(|one| one.load * one.weight).sum();
    let prefix = candidates.iter().map(|one| one.prefix * one.weight).fold(f64::INFINITY, f64::min);
    if weights > 0.0 { (loads + prefix + own) / weights } else { 0.0 }
}

/// The place of one candidate for all of the work; `None` for no candidates.
///
/// One that holds the prefix, unless computing it elsewhere wins more than that costs; else the
/// highest rank under the load bound; else who finishes first.
pub(super) fn whole(candidates: &[Candidate], own: f64, terms: Terms) -> Option<(usize, Choice)> {
    let first = argmin(candidates, |one| (one.finish(own), -one.rank))?;
    let earliest = candidates[first].finish(own);
    let held = |one: &Candidate| if one.prefix > 0.0 { f64::INFINITY } else { one.finish(own) };
    let resident = argmin(candidates, |one| (held(one), -one.rank))?;
    let cost = candidates[first].prefix;
    if held(&candidates[resident]) <= earliest + terms.gain * cost {
        return Some((resident, Choice::Resident));
    }
    // An idle replica is never over the bound: `earliest` is within it.
    let bound =
        (terms.load_bound * mean_after(candidates, own)).max(earliest + terms.finish_slack * own);
    let late = |one: &Candidate| one.finish(own) > bound;
    let chosen = argmin(candidates, |one| (f64::from(u8::from(late(one))), -one.rank))?;
    let best = argmin(candidates, |one| (0.0, -one.rank))?;
    Some((chosen, if chosen == best { Choice::First } else { Choice::Lower }))
}

/// Places and shares (seconds of a whole replica) of the parts that `own` seconds should be split
/// into, the one with the most first; `None` if no split pays.
///
/// `piece` is the least a part may get, `whole` when the work would be done without a split.
pub(super) fn split(
    candidates: &[Candidate],
    own: f64,
    piece: f64,
    whole: f64,
    terms: Terms,
) -> Option<Vec<(usize, f64)>> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    let key = |&place: &usize| (candidates[place].start(), -candidates[place].rank);
    order.sort_by(|a, b| compare(key(a), key(b)));
    let (mut best, mut best_gain) = (1, 0.0);
    let (mut spent, mut weights, mut starts) = (0.0, 0.0, 0.0);
    for (count, &place) in order.iter().enumerate() {
        let one = &candidates[place];
        weights += one.weight;
        starts += one.start() * one.weight;
        spent += if count > 0 { one.prefix * one.weight } else { 0.0 };
        let level = (own + starts) / weights;
        // Those that come after start even later.
        if (level - one.start()) * one.weight < piece {
            break;
        }
        let won = whole - level.max(terms.level) - terms.gain * spent;
        if count > 0 && won > best_gain {
            (best, best_gain) = (count + 1, won);
        }
    }
    if best == 1 {
        return None;
    }
    order.truncate(best);
    let mut parts = fill(candidates, &order, own);
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    Some(parts)
}

/// Spreads `own` seconds over some candidates so that they finish together as far as that can be:
/// places and seconds of a whole replica.
pub(super) fn fill(candidates: &[Candidate], places: &[usize], own: f64) -> Vec<(usize, f64)> {
    let mut order = places.to_vec();
    order.sort_by(|&a, &b| candidates[a].start().total_cmp(&candidates[b].start()));
    let (mut weights, mut starts, mut level) = (0.0, 0.0, f64::INFINITY);
    for &place in &order {
        let one = &candidates[place];
        if one.start() >= level {
            break;
        }
        weights += one.weight;
        starts += one.start() * one.weight;
        level = (own + starts) / weights;
    }
    let share = |one: &Candidate| ((level - one.start()) * one.weight).max(0.0);
    places.iter().map(|&place| (place, share(&candidates[place]))).collect()
}

/// Where the least key is, the first of equals.
fn argmin(candidates: &[Candidate], key: impl Fn(&Candidate) -> (f64, f64)) -> Option<usize> {
    (0..candidates.len()).min_by(|&a, &b| compare(key(&candidates[a]), key(&candidates[b])))
}

fn compare(a: (f64, f64), b: (f64, f64)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
}

#[cfg(test)]
mod tests;
