use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sleuth_models::backbone::Backbone;

use super::caches::{Caches, Key};
use crate::CacheStats;

/// The caches of every device of a pool; on the CPU there is one.
#[derive(Debug)]
pub(super) struct Places<B: Backbone>(Vec<Place<B>>);

#[derive(Debug)]
struct Place<B: Backbone> {
    caches: Caches<B>,
    /// Nothing that is there can be read again.
    lost: AtomicBool,
}

// === impl Places ===

impl<B: Backbone> Places<B> {
    pub(super) fn new(caches: Vec<Caches<B>>) -> Self {
        let place = |caches| Place { caches, lost: AtomicBool::new(false) };
        Self(caches.into_iter().map(place).collect())
    }

    /// Devices that are there.
    pub(super) fn count(&self) -> usize {
        self.live().count()
    }

    pub(super) fn at(&self, home: usize) -> &Caches<B> {
        &self.0[home].caches
    }

    pub(super) fn hold_prefix(&self, key: &Key) -> bool {
        self.live().any(|(_, caches)| caches.holds_prefix(key))
    }

    pub(super) fn hold_image(&self, image: &[u8; 32]) -> bool {
        self.live().any(|(_, caches)| caches.holds_image(image))
    }

    pub(super) fn prefix_elsewhere(&self, home: usize, key: &Key) -> Option<Arc<B::Prefix>> {
        self.others(home).find_map(|caches| caches.held_prefix(key))
    }

    pub(super) fn features_elsewhere(
        &self,
        home: usize,
        image: &[u8; 32],
    ) -> Option<Arc<B::Features>> {
        self.others(home).find_map(|caches| caches.held_features(image))
    }

    /// Takes note that a device is lost, and forgets what it held.
    pub(super) fn lose(&self, home: usize) {
        let place = &self.0[home];
        place.lost.store(true, Ordering::Release);
        place.caches.clear();
    }

    pub(super) fn prefix_stats(&self) -> CacheStats {
        self.0.iter().map(|place| place.stats(place.caches.prefix_stats())).sum()
    }

    pub(super) fn vision_stats(&self) -> CacheStats {
        self.0.iter().map(|place| place.stats(place.caches.vision_stats())).sum()
    }

    fn live(&self) -> impl Iterator<Item = (usize, &Caches<B>)> {
        let places = self.0.iter().enumerate();
        places.filter(|(_, place)| !place.is_lost()).map(|(at, place)| (at, &place.caches))
    }

    fn others(&self, home: usize) -> impl Iterator<Item = &Caches<B>> {
        self.live().filter(move |&(at, _)| at != home).map(|(_, caches)| caches)
    }
}

impl<B: Backbone> Place<B> {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// What a lost place did stays counted; nothing can be held there any more.
    fn stats(&self, stats: CacheStats) -> CacheStats {
        if self.is_lost() { CacheStats { limit_bytes: 0, ..stats } } else { stats }
    }
}
