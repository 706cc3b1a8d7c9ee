use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::cost::Cost;
use super::pace::{Pace, stretch};
use super::{PrefixDigest, Reason, ReplicaId};

/// Where a replica stands. Names no other one after that replica has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Slot {
    index: u32,
    generation: u32,
}

/// What is known of one replica.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) id: ReplicaId,
    seed: u64,
    /// When it joined; `None` for those that were there from the start.
    joined: Option<Duration>,
    health: f64,
    pub(super) draining: bool,
    /// The default first; empty while it has not reported.
    pub(super) versions: Vec<Arc<str>>,
    /// Items that were sent there and have not ended, and the prefixes they compute.
    sent: Cost,
    /// Members that have not come yet.
    reserved: Cost,
    pub(super) items: usize,
    others: Others,
    pace: Pace,
    /// By how much its work takes longer than that of the others.
    stretch: f64,
    pub(super) placed: [u64; Reason::ALL.len()],
}

/// Seconds of work that a replica has of other routers, as far as its reports show.
#[derive(Debug, Default)]
struct Others {
    /// When the report came.
    at: Duration,
    seconds: f64,
    /// Of all work there, the others' part then: 0..=1.
    share: f64,
    /// Most that was out there since the last report, and between the two before.
    peaks: [Cost; 2],
}

/// The replicas.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    slots: Vec<(u32, Option<Replica>)>,
    by_id: BTreeMap<ReplicaId, Slot>,
    /// Of all replicas.
    out: Cost,
}

/// A replica that has just joined gets so much of its share.
const LEAST_START: f64 = 0.1;

// === impl Replica ===

impl Replica {
    /// 0..=1.
    pub(super) fn weight(&self, now: Duration, slow_start: Duration) -> f64 {
        let Some(joined) = self.joined else { return self.health };
        let start = now.saturating_sub(joined).as_secs_f64() / slow_start.as_secs_f64();
        // Without a slow start this divides by 0.
        let start = if start.is_nan() { 1.0 } else { start };
        self.health * start.clamp(LEAST_START, 1.0)
    }

    /// What it does of an idle replica's work, given the share it gets. Above 0 where that is.
    pub(super) fn speed(&self, weight: f64) -> f64 {
        weight / self.stretch
    }

    /// Seconds it will take for all there is.
    pub(super) fn load(&self, now: Duration) -> f64 {
        self.out().seconds() * self.stretch + self.others.seconds(now)
    }

    /// Whether it answers with a version; `None` if it never said with which.
    pub(super) fn offers(&self, version: &str) -> Option<bool> {
        (!self.versions.is_empty()).then(|| self.versions.iter().any(|own| **own == *version))
    }

    /// Higher for the replica where the prefix should be. Weighted rendezvous: a replica's share of
    /// the prefixes is its share of the weights, and no other prefix moves where one changes.
    pub(super) fn rank(&self, prefix: &PrefixDigest, weight: f64) -> f64 {
        let mut word = [0; 8];
        word.copy_from_slice(&prefix[..8]);
        let hash = mix(u64::from_le_bytes(word) ^ mix(self.seed));
        // 53 bits, in the middle of their step so that neither 0 nor 1 comes out.
        let uniform = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -weight / uniform.ln()
    }

    pub(super) fn out(&self) -> Cost {
        let mut out = self.sent;
        out.add(self.reserved);
        out
    }
}

// === impl Others ===

impl Others {
    /// The device works on all alike, so the others' part shrinks by its share.
    fn seconds(&self, now: Duration) -> f64 {
        let worked = now.saturating_sub(self.at).as_secs_f64() * self.share;
        (self.seconds - worked).max(0.0)
    }

    /// A report may be older than verdicts that have come since, and newer than items that were
    /// sent. So what this router had out counts with its most: rather too little is left for the
    /// others than the own counted twice.
    fn report(&mut self, queue: f64, sent: Cost, stretch: f64, now: Duration) {
        let own = self.peaks[0].max(self.peaks[1]).max(sent).seconds() * stretch;
        let queue = if queue.is_finite() { queue.max(0.0) } else { 0.0 };
        let seconds = (queue - own).max(0.0);
        let share = if queue > 0.0 { seconds / queue } else { 0.0 };
        *self = Self { at: now, seconds, share, peaks: [sent, self.peaks[0]] };
    }
}

// === impl Fleet ===

impl Fleet {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn slot(&self, id: &ReplicaId) -> Option<Slot> {
        self.by_id.get(id).copied()
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Replica> {
        let (generation, replica) = self.slots.get(slot.index as usize)?;
        replica.as_ref().filter(|_| *generation == slot.generation)
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Replica> {
        let (generation, replica) = self.slots.get_mut(slot.index as usize)?;
        replica.as_mut().filter(|_| *generation == slot.generation)
    }

    /// In the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Replica)> {
        self.by_id.values().filter_map(|&slot| Some((slot, self.get(slot)?)))
    }

    /// Everything that this router has out, in seconds.
    pub(super) fn out(&self) -> f64 {
        self.out.seconds()
    }

    /// Takes over the members; returns who left.
    pub(super) fn set(&mut self, ids: &[ReplicaId], now: Duration) -> Vec<Slot> {
        let joined = (!self.slots.is_empty()).then_some(now);
        let gone: Vec<(ReplicaId, Slot)> = self
            .by_id
            .iter()
            .filter(|(id, _)| !ids.contains(id))
            .map(|(id, &slot)| (id.clone(), slot))
            .collect();
        for (id, slot) in &gone {
            self.by_id.remove(id);
            if let Some(left) = self.get(*slot).map(Replica::out) {
                self.out.take(left);
            }
            self.slots[slot.index as usize].1 = None;
        }
        for id in ids {
            if !self.by_id.contains_key(id) {
                let slot = self.vacant();
                self.slots[slot.index as usize].1 = Some(Replica::new(id.clone(), joined));
                self.by_id.insert(id.clone(), slot);
            }
        }
        gone.into_iter().map(|(_, slot)| slot).collect()
    }

    pub(super) fn set_health(&mut self, slot: Slot, health: f64) {
        if let Some(replica) = self.get_mut(slot) {
            replica.health = if health > 0.0 { health.min(1.0) } else { 0.0 };
        }
    }

    pub(super) fn report(&mut self, slot: Slot, queue: f64, now: Duration) {
        if let Some(replica) = self.get_mut(slot) {
            let (sent, stretch) = (replica.sent, replica.stretch);
            replica.others.report(queue, sent, stretch, now);
        }
    }

    /// What the others have there is unknown.
    pub(super) fn lost(&mut self, slot: Slot) {
        if let Some(replica) = self.get_mut(slot) {
            replica.others = Others::default();
        }
    }

    /// An item goes there, of this cost with its prefix's.
    pub(super) fn send(&mut self, slot: Slot, cost: Cost, reason: Reason, now: Duration) {
        let Some(replica) = self.get_mut(slot) else { return };
        replica.pace.sent(now);
        replica.sent.add(cost);
        replica.items += 1;
        replica.placed[reason as usize] += 1;
        replica.others.peaks[0] = replica.others.peaks[0].max(replica.sent);
        self.out.add(cost);
    }

    /// An item ended there, and was computed or not. Nothing happens if the replica has left.
    pub(super) fn end(&mut self, slot: Slot, cost: Cost, computed: bool, now: Duration) {
        let Some(replica) = self.get_mut(slot) else { return };
        replica.sent.take(cost);
        replica.items = replica.items.saturating_sub(1);
        let is_last = replica.items == 0;
        let is_new = replica.pace.ended(cost.seconds(), computed, is_last, now);
        self.out.take(cost);
        if is_new {
            self.compare_paces();
        }
    }

    fn compare_paces(&mut self) {
        let paces: Vec<Option<f64>> = self.iter().map(|(_, one)| one.pace.seconds()).collect();
        for replica in self.slots.iter_mut().filter_map(|(_, replica)| replica.as_mut()) {
            replica.stretch = stretch(replica.pace.seconds(), &paces);
        }
    }

    pub(super) fn reserve(&mut self, slot: Slot, cost: Cost) {
        let Some(replica) = self.get_mut(slot) else { return };
        replica.reserved.add(cost);
        self.out.add(cost);
    }

    pub(super) fn unreserve(&mut self, slot: Slot, cost: Cost) {
        let Some(replica) = self.get_mut(slot) else { return };
        replica.reserved.take(cost);
        self.out.take(cost);
    }

    fn vacant(&mut self) -> Slot {
        let place = self.slots.iter().position(|(_, replica)| replica.is_none());
        let index = place.unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() - 1
        });
        let generation = &mut self.slots[index].0;
        *generation = generation.wrapping_add(1);
        Slot { index: index as u32, generation: *generation }
    }
}

impl Replica {
    fn new(id: ReplicaId, joined: Option<Duration>) -> Self {
        Self {
            seed: id.seed(),
            id,
            joined,
            health: 1.0,
            draining: false,
            versions: Vec::new(),
            sent: Cost::ZERO,
            reserved: Cost::ZERO,
            items: 0,
            others: Others::default(),
            pace: Pace::default(),
            stretch: 1.0,
            placed: [0; Reason::ALL.len()],
        }
    }
}

/// The finaliser of SplitMix64: every bit of the input moves every bit of the output.
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
