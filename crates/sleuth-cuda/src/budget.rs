/// Device memory is accounted in steps of this many bytes: what `cuMemAlloc` rounds to, so that
/// many small buffers do not cost more than the books say.
pub const GRANULE: u64 = 512;

const PARTS: u32 = 1_000_000;

/// A part of a device's free memory, above 0 and at most 1, exact to a millionth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemoryShare(u32);

/// A share that is none.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "a memory share is a number above 0 and at most 1, not {0}: 0.9 takes nine tenths of what is free"
)]
pub struct BadShare(pub f64);

/// A device has no room for what was asked. Nothing is broken: free something, or wait, and ask
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error(
    "device {device} has no room for {wanted} bytes: {free} are free within its share of memory"
)]
pub struct Exhausted {
    /// The device's ordinal.
    pub device: u32,
    /// Bytes asked for, rounded up to [`GRANULE`].
    pub wanted: u64,
    /// Bytes that were free within the budget when it was refused.
    pub free: u64,
}

/// How much of a device's memory may be taken, and is.
///
/// The limit is the share of what is really free, counting what is taken from it as free, and no
/// more than a cap. It follows the device: [`Budget::reread`] is called when room runs out or an
/// allocation fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    share: MemoryShare,
    cap: u64,
    limit: u64,
    used: u64,
    reserved: u64,
}

/// What a budget holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetUse {
    /// The most that may be taken.
    pub limit: u64,
    /// What buffers take.
    pub used: u64,
    /// What is held for buffers to come.
    pub reserved: u64,
}

// === impl MemoryShare ===

impl MemoryShare {
    /// All that is free.
    pub const ALL: Self = Self(PARTS);

    /// `MemoryShare::new(0.9)` is nine tenths.
    ///
    /// # Errors
    /// [`BadShare`] for what is not above 0 and at most 1.
    pub fn new(share: f64) -> Result<Self, BadShare> {
        let parts = (share * f64::from(PARTS)).round();
        if parts >= 1.0 && parts <= f64::from(PARTS) && share <= 1.0 {
            Ok(Self(parts as u32))
        } else {
            Err(BadShare(share))
        }
    }

    /// The share of `bytes`, rounded down.
    pub fn of(self, bytes: u64) -> u64 {
        (u128::from(bytes) * u128::from(self.0) / u128::from(PARTS)) as u64
    }
}

// === impl Budget ===

impl Budget {
    /// A budget over a device of which `free` bytes are free.
    pub fn new(share: MemoryShare, free: u64) -> Self {
        Self { share, cap: u64::MAX, limit: share.of(free), used: 0, reserved: 0 }
    }

    /// Follows what is free now, as the device tells it.
    pub fn reread(&mut self, free: u64) {
        self.limit = self.share.of(free.saturating_add(self.used)).min(self.cap);
    }

    /// Takes no more than `bytes` from now on, such as a plan's cache, however much is free. What
    /// is taken already stays.
    pub fn cap(&mut self, bytes: u64) {
        self.cap = bytes;
        self.limit = self.limit.min(bytes);
    }

    /// Takes room for a buffer and returns the bytes that it counts for.
    ///
    /// # Errors
    /// The bytes that are free, where that is too few.
    pub fn take(&mut self, bytes: u64) -> Result<u64, u64> {
        let counted = counted(bytes);
        if counted > self.free() {
            return Err(self.free());
        }
        self.used += counted;
        Ok(counted)
    }

    /// Gives back what [`Budget::take`] counted.
    pub fn give_back(&mut self, counted: u64) {
        self.used = self.used.saturating_sub(counted);
    }

    /// Holds room for buffers to come and returns the bytes held.
    ///
    /// # Errors
    /// The bytes that are free, where that is too few.
    pub fn reserve(&mut self, bytes: u64) -> Result<u64, u64> {
        let counted = counted(bytes);
        if counted > self.free() {
            return Err(self.free());
        }
        self.reserved += counted;
        Ok(counted)
    }

    /// Lets go of room that was held.
    pub fn release(&mut self, counted: u64) {
        self.reserved = self.reserved.saturating_sub(counted);
    }

    /// As [`Budget::take`], from `held` room first, of which it takes its part.
    ///
    /// # Errors
    /// The bytes that are free with what is held, where that is too few.
    pub fn take_from(&mut self, held: &mut u64, bytes: u64) -> Result<u64, u64> {
        let counted = counted(bytes);
        let spent = counted.min(*held);
        if counted - spent > self.free() {
            return Err(self.free() + spent);
        }
        self.reserved = self.reserved.saturating_sub(spent);
        *held -= spent;
        self.used += counted;
        Ok(counted)
    }

    /// Bytes that may still be taken.
    pub fn free(&self) -> u64 {
        self.limit.saturating_sub(self.used).saturating_sub(self.reserved)
    }

    /// What it holds.
    pub fn usage(&self) -> BudgetUse {
        BudgetUse { limit: self.limit, used: self.used, reserved: self.reserved }
    }
}

/// The bytes that a buffer counts for.
pub(crate) fn counted(bytes: u64) -> u64 {
    bytes.div_ceil(GRANULE).saturating_mul(GRANULE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_share_is_above_0_and_at_most_1() {
        for bad in [0.0, -0.5, 1.000_001, 90.0, 1e-9, f64::NAN, f64::INFINITY] {
            assert!(MemoryShare::new(bad).is_err(), "{bad}");
        }
        assert_eq!(MemoryShare::new(1.0), Ok(MemoryShare::ALL));
        assert_eq!(MemoryShare::new(0.9).unwrap().of(1000), 900);
        assert_eq!(MemoryShare::ALL.of(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_refusal_tells_what_is_free_and_takes_nothing() {
        let mut budget = Budget::new(MemoryShare::new(0.5).unwrap(), 8192);
        assert_eq!(budget.take(3000), Ok(3072));
        assert_eq!(budget.reserve(512), Ok(512));
        assert_eq!(budget.take(1024), Err(512));
        assert_eq!(budget.usage(), BudgetUse { limit: 4096, used: 3072, reserved: 512 });
    }

    #[test]
    fn held_room_is_spent_before_what_is_free() {
        let mut budget = Budget::new(MemoryShare::ALL, 4096);
        let mut held = budget.reserve(2048).unwrap();
        budget.take(1024).unwrap();
        assert_eq!(budget.take_from(&mut held, 3500), Err(3072));
        assert_eq!(budget.take_from(&mut held, 2560), Ok(2560));
        assert_eq!(held, 0);
        assert_eq!(budget.usage(), BudgetUse { limit: 4096, used: 3584, reserved: 0 });
    }

    #[test]
    fn the_limit_follows_what_is_really_free() {
        let mut budget = Budget::new(MemoryShare::ALL, 4096);
        budget.take(2048).unwrap();
        // Somebody else took 1,024 of the 2,048 that were left.
        budget.reread(1024);
        assert_eq!(budget.free(), 1024);
        budget.reread(2048);
        assert_eq!(budget.free(), 2048);
        budget.reread(0);
        assert_eq!(budget.free(), 0);
    }

    #[test]
    fn a_cap_holds_however_much_is_free() {
        let mut budget = Budget::new(MemoryShare::ALL, 4096);
        budget.cap(1024);
        assert_eq!(budget.take(1536), Err(1024));
        budget.reread(1 << 30);
        assert_eq!(budget.free(), 1024);
        // A higher one counts once it is known what is free.
        budget.cap(2048);
        budget.reread(1 << 30);
        assert_eq!(budget.free(), 2048);
        budget.reread(512);
        assert_eq!(budget.free(), 512);
    }

    proptest! {
        #[test]
        fn what_is_taken_and_held_stays_within_the_limit(
            free in 0_u64..1 << 20,
            parts in 1_u32..=PARTS,
            steps in prop::collection::vec((any::<bool>(), 0_u64..1 << 18), 0..40),
        ) {
            let mut budget = Budget::new(MemoryShare(parts), free);
            let limit = budget.usage().limit;
            let mut taken = Vec::new();
            for (reserve, bytes) in steps {
                let got = if reserve { budget.reserve(bytes) } else { budget.take(bytes) };
                match got {
                    Ok(counted) => {
                        prop_assert!(counted >= bytes && counted < bytes + GRANULE);
                        taken.push((reserve, counted));
                    }
                    Err(free) => prop_assert!(free < counted(bytes)),
                }
                let used = budget.usage();
                prop_assert!(used.used + used.reserved <= limit && limit <= free);
            }
            for (reserve, counted) in taken {
                if reserve { budget.release(counted) } else { budget.give_back(counted) }
            }
            prop_assert_eq!(budget.usage(), BudgetUse { limit, used: 0, reserved: 0 });
        }
    }
}
