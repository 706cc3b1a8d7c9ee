//! Which devices get a replica, and how much memory it may use there. Pure and deterministic.
//!
//! A device gets at most one replica: a scorer's work is all prefill, which fills a device alone.
//!
//! Invariants
//! - No replica is given more than the share of its device's free memory.
//! - Devices are taken by free memory, most first, then by ordinal; the same facts give the same
//!   plan.
//! - Every candidate is either placed or left out with one reason. While replicas are wanted,
//!   nobody is left out that is fit, listed and has the room.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::budget::MemoryShare;
use crate::discovery::UnfitReason;

/// A device that may get a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The device's ordinal.
    pub ordinal: u32,
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Why it cannot serve, if it cannot.
    pub unfit: Option<UnfitReason>,
}

/// What a replica takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaNeed {
    /// Its weights.
    pub weights: u64,
    /// What a pass works in, at most.
    pub workspace: u64,
    /// The least cache of keys and values with which it is worth running.
    pub smallest_cache: u64,
}

/// How many replicas there shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// As many as fit.
    AsManyAsFit,
    /// This many.
    Exactly(usize),
}

/// A replica's place and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The device's ordinal.
    pub ordinal: u32,
    /// Bytes for weights.
    pub weights: u64,
    /// Bytes for a pass.
    pub workspace: u64,
    /// Bytes for keys and values: all that is left of the share.
    pub cache_bytes: u64,
}

/// Why a device gets no replica.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It cannot serve.
    #[error("{0}")]
    Unfit(UnfitReason),
    /// The list of devices does not name it.
    #[error("the list of devices does not name it")]
    NotListed,
    /// Its share of free memory is too small.
    #[error("a replica needs {needed} bytes and its share of free memory is {usable}")]
    TooSmall {
        /// Weights, workspace and the smallest cache.
        needed: u64,
        /// The share of what is free.
        usable: u64,
    },
    /// There are enough replicas without it.
    #[error("there are enough replicas without it")]
    NotWanted,
}

/// Who serves and who does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// By free memory, most first, then by ordinal.
    pub replicas: Vec<Placed>,
    /// Devices without a replica, by ordinal.
    pub left_out: Vec<(u32, Why)>,
    /// Replicas that were wanted and found no room.
    pub short: usize,
}

/// A list of devices that names what is not there, or one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadList {
    /// There is no such device.
    #[error(
        "the list of devices names {0}, and there is no such device: `sleuth inspect --devices` lists them"
    )]
    Unknown(u32),
    /// A device stands twice.
    #[error("the list of devices names {0} twice: a device gets one replica")]
    Twice(u32),
}

// === impl ReplicaNeed ===

impl ReplicaNeed {
    /// The least that a device must be able to give.
    pub fn smallest(&self) -> u64 {
        self.weights.saturating_add(self.workspace).saturating_add(self.smallest_cache)
    }
}

/// Places replicas on `candidates`, or on those of them that `only` names.
///
/// # Errors
/// [`BadList`] where `only` is wrong. Too few places is no error: [`Plan::short`] counts them.
pub fn place(
    candidates: &[Candidate],
    share: MemoryShare,
    need: &ReplicaNeed,
    wanted: Wanted,
    only: Option<&[u32]>,
) -> Result<Plan, BadList> {
    let listed = listed(candidates, only)?;
    let mut order: Vec<_> = candidates.iter().collect();
    order.sort_by_key(|candidate| (Reverse(candidate.free_bytes), candidate.ordinal));
    let most = match wanted {
        Wanted::AsManyAsFit => candidates.len(),
        Wanted::Exactly(count) => count,
    };
    let mut plan = Plan::default();
    for candidate in order {
        let usable = share.of(candidate.free_bytes);
        let why = if !listed.contains(&candidate.ordinal) {
            Why::NotListed
        } else if let Some(reason) = &candidate.unfit {
            Why::Unfit(reason.clone())
        } else if usable < need.smallest() {
            Why::TooSmall { needed: need.smallest(), usable }
        } else if plan.replicas.len() == most {
            Why::NotWanted
        } else {
            plan.replicas.push(Placed {
                ordinal: candidate.ordinal,
                weights: need.weights,
                workspace: need.workspace,
                cache_bytes: usable - need.weights - need.workspace,
            });
            continue;
        };
        plan.left_out.push((candidate.ordinal, why));
    }
    plan.left_out.sort_by_key(|(ordinal, _)| *ordinal);
    if let Wanted::Exactly(count) = wanted {
        plan.short = count - plan.replicas.len();
    }
    Ok(plan)
}

fn listed(candidates: &[Candidate], only: Option<&[u32]>) -> Result<BTreeSet<u32>, BadList> {
    let known: BTreeSet<u32> = candidates.iter().map(|candidate| candidate.ordinal).collect();
    let Some(only) = only else { return Ok(known) };
    let mut listed = BTreeSet::new();
    for ordinal in only {
        if !known.contains(ordinal) {
            return Err(BadList::Unknown(*ordinal));
        }
        if !listed.insert(*ordinal) {
            return Err(BadList::Twice(*ordinal));
        }
    }
    Ok(listed)
}

#[cfg(test)]
mod tests;
