//! Who holds what, and which copies are under way. Pure: it decides, others copy.
//!
//! Invariants
//! - For one key and one device there is at most one flight; whoever else asks joins it.
//! - A flight asks each holder at most once, and ends exactly once: landed, failed, or forgotten
//!   with its device. Whatever its copier reports later is stale.
//! - A lost device holds nothing and is asked for nothing again.

use std::collections::{BTreeMap, BTreeSet};

use crate::peers::PeerMatrix;
use crate::segment::Key;

/// Names a copy under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlightId(u64);

/// Which devices hold a copy of what is named by a key; `C` is a copy, such as a
/// [`Segment`](crate::Segment).
#[derive(Debug)]
pub struct Directory<C> {
    peers: PeerMatrix,
    holders: BTreeMap<Key, BTreeMap<u32, C>>,
    flights: BTreeMap<FlightId, Flight>,
    landing: BTreeMap<(Key, u32), FlightId>,
    lost: BTreeSet<u32>,
    next: u64,
}

#[derive(Debug)]
struct Flight {
    key: Key,
    to: u32,
    from: u32,
    asked: BTreeSet<u32>,
}

/// What to do for somebody who wants a key on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want<C> {
    /// Take this.
    Local(C),
    /// Wait for this flight, which somebody else leads.
    Join(FlightId),
    /// Copy `source` from device `from`, and tell what came of it.
    Lead {
        /// The flight.
        flight: FlightId,
        /// The device that holds it.
        from: u32,
        /// Its copy.
        source: C,
    },
    /// Nobody holds it: compute it.
    Missing,
    /// The device was lost.
    Lost,
}

/// What to do after a copy failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retry<C> {
    /// Copy this one instead.
    From {
        /// The device that holds it.
        from: u32,
        /// Its copy.
        source: C,
    },
    /// Every holder was asked: the flight has ended, and nobody holds it.
    Missing,
    /// The flight had ended before.
    Stale,
}

/// What became of a copy that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landed<C> {
    /// It is held; this is what the device holds.
    Held(C),
    /// Its flight had ended before; nobody holds it.
    Stale,
}

/// What went with a device.
#[derive(Debug)]
pub struct Forgotten<C> {
    /// Its copies.
    pub copies: Vec<C>,
    /// Flights to it, which have ended.
    pub flights: Vec<FlightId>,
}

// === impl Directory ===

impl<C: Clone> Directory<C> {
    /// A directory over devices that reach each other like this. Direct ways are preferred.
    pub fn new(peers: PeerMatrix) -> Self {
        Self {
            peers,
            holders: BTreeMap::new(),
            flights: BTreeMap::new(),
            landing: BTreeMap::new(),
            lost: BTreeSet::new(),
            next: 0,
        }
    }

    /// What to do for somebody who wants `key` on device `to`.
    pub fn want(&mut self, key: Key, to: u32) -> Want<C> {
        if self.lost.contains(&to) {
            return Want::Lost;
        }
        if let Some(copy) = self.held(key, to) {
            return Want::Local(copy);
        }
        if let Some(flight) = self.landing.get(&(key, to)) {
            return Want::Join(*flight);
        }
        let Some((from, source)) = self.choose(key, to, &BTreeSet::new()) else {
            return Want::Missing;
        };
        let flight = FlightId(self.next);
        self.next += 1;
        self.flights.insert(flight, Flight { key, to, from, asked: BTreeSet::from([from]) });
        self.landing.insert((key, to), flight);
        Want::Lead { flight, from, source }
    }

    /// A flight's source failed, or sent other bytes.
    pub fn source_failed(&mut self, flight: FlightId) -> Retry<C> {
        let Some(state) = self.flights.get(&flight) else { return Retry::Stale };
        let Some((from, source)) = self.choose(state.key, state.to, &state.asked) else {
            self.end(flight);
            return Retry::Missing;
        };
        if let Some(state) = self.flights.get_mut(&flight) {
            state.from = from;
            state.asked.insert(from);
        }
        Retry::From { from, source }
    }

    /// A flight's copy arrived.
    pub fn land(&mut self, flight: FlightId, copy: C) -> Landed<C> {
        let Some(Flight { key, to, .. }) = self.end_flight(flight) else { return Landed::Stale };
        // Somebody may have computed it meanwhile; what is held stays.
        Landed::Held(self.holders.entry(key).or_default().entry(to).or_insert(copy).clone())
    }

    /// A flight failed for good. Whether it was still under way.
    pub fn end(&mut self, flight: FlightId) -> bool {
        self.end_flight(flight).is_some()
    }

    /// Notes that a device holds a copy. What it already holds stays and is returned; none where
    /// the device was lost.
    pub fn insert(&mut self, key: Key, on: u32, copy: C) -> Option<C> {
        if self.lost.contains(&on) {
            return None;
        }
        Some(self.holders.entry(key).or_default().entry(on).or_insert(copy).clone())
    }

    /// Forgets a device's copy.
    pub fn remove(&mut self, key: Key, on: u32) -> Option<C> {
        let holders = self.holders.get_mut(&key)?;
        let copy = holders.remove(&on);
        if holders.is_empty() {
            self.holders.remove(&key);
        }
        copy
    }

    /// Forgets a device that was lost, for good.
    pub fn forget_device(&mut self, ordinal: u32) -> Forgotten<C> {
        self.lost.insert(ordinal);
        let mut copies = Vec::new();
        self.holders.retain(|_, holders| {
            copies.extend(holders.remove(&ordinal));
            !holders.is_empty()
        });
        let flights: Vec<_> = self
            .flights
            .iter()
            .filter(|(_, flight)| flight.to == ordinal)
            .map(|(id, _)| *id)
            .collect();
        for flight in &flights {
            self.end(*flight);
        }
        Forgotten { copies, flights }
    }

    /// Notes that copies no longer go directly from one device to another.
    pub fn withdraw_peer(&mut self, from: u32, to: u32) {
        self.peers.close(from, to);
    }

    /// A device's copy.
    pub fn held(&self, key: Key, on: u32) -> Option<C> {
        self.holders.get(&key)?.get(&on).cloned()
    }

    /// Devices that hold a copy, by number.
    pub fn holders(&self, key: Key) -> Vec<u32> {
        self.holders.get(&key).map(|holders| holders.keys().copied().collect()).unwrap_or_default()
    }

    /// Keys that a device holds.
    pub fn keys_on(&self, ordinal: u32) -> Vec<Key> {
        let holds = |holders: &BTreeMap<u32, C>| holders.contains_key(&ordinal);
        self.holders.iter().filter(|(_, holders)| holds(holders)).map(|(key, _)| *key).collect()
    }

    /// Copies under way.
    pub fn flights(&self) -> usize {
        self.flights.len()
    }

    /// The best holder not yet asked: reached directly, then with the fewest copies under way from
    /// it, then the lowest number.
    fn choose(&self, key: Key, to: u32, asked: &BTreeSet<u32>) -> Option<(u32, C)> {
        let holders = self.holders.get(&key)?;
        let sending = |from: u32| self.flights.values().filter(|f| f.from == from).count();
        let (from, source) = holders
            .iter()
            .filter(|(from, _)| **from != to && !asked.contains(from))
            .min_by_key(|(from, _)| (!self.peers.reaches(**from, to), sending(**from), **from))?;
        Some((*from, source.clone()))
    }

    fn end_flight(&mut self, flight: FlightId) -> Option<Flight> {
        let ended = self.flights.remove(&flight)?;
        self.landing.remove(&(ended.key, ended.to));
        Some(ended)
    }
}

#[cfg(test)]
mod tests;
