use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use sleuth_core::Pixels;
use sleuth_models::backbone::{Backbone, Held, PassError};

use crate::CacheStats;
use crate::cache::{Cache, Lookup};

/// What a prefix's keys and values depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Of weights, adapter and types.
    pub(super) version: Arc<str>,
    /// Of the encoded image and its preprocessing.
    pub(super) image: [u8; 32],
    pub(super) prompt: Arc<[u32]>,
}

/// The caches of a pool, shared by its workers.
#[derive(Debug)]
pub(super) struct Caches<B: Backbone> {
    version: Arc<str>,
    prefixes: Mutex<Cache<Key, B::Prefix>>,
    vision: Mutex<Cache<ImageKey, B::Features>>,
    /// An image's flight has ended.
    seen: Condvar,
}

/// Features of images, and whether each was held.
pub(super) type Seen<B> = Vec<(Arc<<B as Backbone>::Features>, bool)>;

/// The version stands for the vision weights.
type ImageKey = (Arc<str>, [u8; 32]);

/// What the cache has of a prefix.
pub(super) enum Found<'c, B: Backbone> {
    Held(Arc<B::Prefix>),
    /// To be computed; with a flight, for the cache too. Without one somebody else computes the
    /// same just now, which the engine's policy avoids.
    Missing(Option<PrefixFlight<'c, B>>),
}

/// The right to put a prefix into the cache. Dropped unused, it is given back.
pub(super) struct PrefixFlight<'c, B: Backbone> {
    caches: &'c Caches<B>,
    /// `None` once it has ended: somebody else's flight for the key may follow it.
    key: Option<Key>,
}

/// Rights to put images' features into the cache.
struct ImageFlights<'c, B: Backbone> {
    caches: &'c Caches<B>,
    keys: Vec<ImageKey>,
}

// === impl Caches ===

impl<B: Backbone> Caches<B> {
    pub(super) fn new(version: &str, prefix_bytes: u64, vision_bytes: u64) -> Self {
        Self {
            version: Arc::from(version),
            prefixes: Mutex::new(Cache::new(prefix_bytes)),
            vision: Mutex::new(Cache::new(vision_bytes)),
            seen: Condvar::new(),
        }
    }

    pub(super) fn prefix(&self, key: Key) -> Found<'_, B> {
        let found = lock(&self.prefixes).lookup(&key);
        match found {
            Lookup::Hit(kv) => Found::Held(kv),
            Lookup::Miss => Found::Missing(Some(PrefixFlight { caches: self, key: Some(key) })),
            Lookup::Busy => Found::Missing(None),
        }
    }

    /// What is held of a prefix or an image, for another device: counts as no use.
    pub(super) fn held_prefix(&self, key: &Key) -> Option<Arc<B::Prefix>> {
        lock(&self.prefixes).held(key)
    }

    pub(super) fn held_features(&self, image: &[u8; 32]) -> Option<Arc<B::Features>> {
        lock(&self.vision).held(&(Arc::clone(&self.version), *image))
    }

    /// Drops all that nobody uses just now.
    pub(super) fn clear(&self) {
        lock(&self.prefixes).clear();
        lock(&self.vision).clear();
    }

    /// A prefix came from another device.
    pub(super) fn count_copy(&self) {
        lock(&self.prefixes).count_copy();
    }

    pub(super) fn holds_prefix(&self, key: &Key) -> bool {
        lock(&self.prefixes).peek(key)
    }

    pub(super) fn holds_image(&self, image: &[u8; 32]) -> bool {
        lock(&self.vision).peek(&(Arc::clone(&self.version), *image))
    }

    /// The features of images, and whether they were held. Those that nobody has come from another
    /// device, or are computed here, each once; for those that another worker computes this one waits.
    ///
    /// Nobody waits while holding an image's flight, so no two workers wait for each other.
    pub(super) fn vision(
        &self,
        images: &[([u8; 32], &Pixels)],
        bring: impl Fn(&[u8; 32]) -> Option<Arc<B::Features>>,
        mut compute: impl FnMut(&[&Pixels]) -> Result<Vec<B::Features>, PassError>,
    ) -> Result<Seen<B>, PassError> {
        let mut found: Vec<Option<(Arc<B::Features>, bool)>> = vec![None; images.len()];
        while found.iter().any(Option::is_none) {
            let mut own = Vec::new();
            {
                let mut flights = ImageFlights { caches: self, keys: Vec::new() };
                let mut cache = lock(&self.vision);
                for (place, (key, pixels)) in images.iter().enumerate() {
                    let key = (Arc::clone(&self.version), *key);
                    if found[place].is_some() || flights.keys.contains(&key) {
                        continue;
                    }
                    match cache.lookup(&key) {
                        Lookup::Hit(features) => found[place] = Some((features, true)),
                        Lookup::Miss => {
                            flights.keys.push(key);
                            own.push((place, *pixels));
                        }
                        Lookup::Busy => {}
                    }
                }
                if own.is_empty() {
                    if found.iter().any(Option::is_none) {
                        drop(self.seen.wait(cache).unwrap_or_else(PoisonError::into_inner));
                    }
                    continue;
                }
                drop(cache);
                own.retain(|&(place, _)| {
                    let Some(features) = bring(&images[place].0) else { return true };
                    flights.land(images[place].0, &features);
                    found[place] = Some((features, true));
                    false
                });
                let pixels: Vec<&Pixels> = own.iter().map(|&(_, pixels)| pixels).collect();
                let computed = compute(&pixels)?.into_iter().map(Arc::new);
                for ((place, _), features) in own.into_iter().zip(computed) {
                    flights.land(images[place].0, &features);
                    for (found, image) in found.iter_mut().zip(images) {
                        if image.0 == images[place].0 {
                            *found = Some((Arc::clone(&features), false));
                        }
                    }
                }
            }
        }
        Ok(found.into_iter().flatten().collect())
    }
}

impl<B: Backbone> Caches<B> {
    pub(super) fn prefix_stats(&self) -> CacheStats {
        lock(&self.prefixes).stats()
    }

    pub(super) fn vision_stats(&self) -> CacheStats {
        lock(&self.vision).stats()
    }
}

// === impl PrefixFlight ===

impl<B: Backbone> PrefixFlight<'_, B> {
    pub(super) fn land(mut self, kv: &Arc<B::Prefix>) {
        if let Some(key) = self.key.take() {
            lock(&self.caches.prefixes).fulfil(key, kv, kv.bytes());
        }
    }
}

impl<B: Backbone> Drop for PrefixFlight<'_, B> {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            lock(&self.caches.prefixes).abandon(key);
        }
    }
}

// === impl ImageFlights ===

impl<B: Backbone> ImageFlights<'_, B> {
    fn land(&mut self, image: [u8; 32], features: &Arc<B::Features>) {
        if let Some(at) = self.keys.iter().position(|key| key.1 == image) {
            let key = self.keys.swap_remove(at);
            lock(&self.caches.vision).fulfil(key, features, features.bytes());
            self.caches.seen.notify_all();
        }
    }
}

impl<B: Backbone> Drop for ImageFlights<'_, B> {
    fn drop(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        let mut cache = lock(&self.caches.vision);
        for key in &self.keys {
            cache.abandon(key);
        }
        drop(cache);
        self.caches.seen.notify_all();
    }
}

/// Nothing panics while a cache is locked, so a poisoned one is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
