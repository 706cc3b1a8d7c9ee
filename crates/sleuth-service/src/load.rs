//! What a replica tells routers: how much it has to do, and which prefixes it holds.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use sleuth_core::{Load, PrefixChanges, ResidentPrefix};
use sleuth_engine::Engine;

use crate::LoadedModel;

/// What a router was told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    digests: HashSet<[u8; 32]>,
    /// Changes of the engines' caches and of names that were told.
    changes: u64,
}

/// The names that routers have for a version's prefixes. Bounded: beyond, the one that was not
/// asked for longest is forgotten, and is then no longer told of.
#[derive(Debug)]
pub(crate) struct PrefixNames {
    names: Mutex<Names>,
}

#[derive(Debug)]
struct Names {
    known: LruCache<[u8; 32], Prefix>,
    changes: u64,
}

#[derive(Clone, Debug)]
struct Prefix {
    image_key: [u8; 32],
    prompt: Arc<[u32]>,
    /// Whether the engine was seen to hold it.
    was_held: bool,
}

/// Names of one version that are remembered.
const MOST_NAMES: usize = 16_384;

/// Of all versions together; they share one machine.
pub(crate) fn load_of(models: &[Arc<LoadedModel>]) -> Load {
    let mut load = Load::default();
    for (place, model) in models.iter().enumerate() {
        let engine = model.engine.load();
        load.queue = load.queue.saturating_add(engine.wait);
        load.unfinished_items += engine.items;
        load.kv_used_bytes += engine.kv_bytes;
        load.kv_limit_bytes += engine.kv_limit_bytes;
        load.versions.push(model.card().version.clone());
        if place == 0 {
            load.prefix_seconds = engine.prefix_seconds;
            load.response_token_seconds = engine.response_token_seconds;
        }
    }
    load
}

// === impl Told ===

impl Told {
    /// What changed since the last time; takes note that it is told now.
    pub(crate) fn update(&mut self, models: &[Arc<LoadedModel>]) -> PrefixChanges {
        let changes = models.iter().map(|model| model.prefixes.changes(&model.engine)).sum();
        if changes == self.changes {
            return PrefixChanges::default();
        }
        self.changes = changes;
        let mut now = HashSet::with_capacity(self.digests.len());
        let mut added = Vec::new();
        for prefix in models.iter().flat_map(|model| model.prefixes.resident(&model.engine)) {
            now.insert(prefix.digest);
            if !self.digests.contains(&prefix.digest) {
                added.push(prefix);
            }
        }
        let removed = self.digests.difference(&now).copied().collect();
        self.digests = now;
        PrefixChanges { added, removed }
    }
}

// === impl PrefixNames ===

impl PrefixNames {
    /// Takes note of a prefix that an item is about to need.
    pub(crate) fn needs(&self, digest: [u8; 32], image_key: [u8; 32], prompt: &Arc<[u32]>) {
        let mut names = self.lock();
        if names.known.get(&digest).is_some() {
            return;
        }
        names.changes += 1;
        let prompt = Arc::clone(prompt);
        names.known.put(digest, Prefix { image_key, prompt, was_held: false });
        if names.known.len() > MOST_NAMES {
            names.known.pop_lru();
        }
    }

    fn changes(&self, engine: &Engine) -> u64 {
        self.lock().changes + engine.load().prefix_changes
    }

    /// Those that the engine holds now. Names of those that it held and does not any more go.
    fn resident(&self, engine: &Engine) -> Vec<ResidentPrefix> {
        let mut names = self.lock();
        let mut resident = Vec::new();
        let mut gone = Vec::new();
        for (&digest, prefix) in &mut names.known {
            if engine.is_resident(&prefix.image_key, &prefix.prompt) {
                prefix.was_held = true;
                let positions = engine.image_tokens() + prefix.prompt.len();
                let positions = u32::try_from(positions).unwrap_or(u32::MAX);
                resident.push(ResidentPrefix { digest, positions });
            } else if prefix.was_held {
                gone.push(digest);
            }
        }
        for digest in gone {
            names.known.pop(&digest);
        }
        resident
    }

    /// Nothing panics while the lock is held.
    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for PrefixNames {
    fn default() -> Self {
        let names = Names { known: LruCache::unbounded(), changes: 0 };
        Self { names: Mutex::new(names) }
    }
}

#[cfg(test)]
mod tests;
