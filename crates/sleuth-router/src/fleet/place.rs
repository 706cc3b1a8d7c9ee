use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Fleet;
use crate::placement::Placed;
use crate::replica::Replica;

/// An item's place. Dropped, it is given back as not computed.
pub(crate) struct Place {
    pub(super) fleet: Fleet,
    pub(crate) replica: Arc<Replica>,
    pub(crate) placed: Option<Placed>,
    pub(super) began: Instant,
}

// === impl Place ===

impl Place {
    /// The item ended here; `computed`: its prefix is held now.
    pub(crate) fn end(mut self, computed: bool) {
        let took = self.began.elapsed();
        self.give_back(computed, Some(took));
    }

    fn give_back(&mut self, computed: bool, took: Option<Duration>) {
        let Some(placed) = self.placed.take() else { return };
        let now = self.fleet.now();
        let mut state = self.fleet.lock();
        if let Some(took) = took.filter(|_| computed) {
            state.counts.scored(&placed.replica, took);
        }
        state.placement.end(placed.ticket, now, computed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.give_back(false, None);
    }
}
