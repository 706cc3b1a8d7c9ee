mod caches;
mod groups;
mod places;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sleuth_core::{Pixels, Prepared};
use sleuth_models::SuffixAttention;
use sleuth_models::backbone::{
    Backbone, BackboneFacts, Behind, Continued, Held, NewPrefix, PassError, PassShape, PassTimes,
    Suffix, SuffixShape, Work as Pass,
};
use sleuth_models::cpu::Workspace;

use self::caches::{Caches, Found, Key, PrefixFlight};
use self::groups::{Group, groups};
use self::places::Places;
use crate::{
    CacheStats, ItemShape, KvCost, Memory, ModelFacts, ModelFailure, Outcome, Part, Phases,
    Prefixes, Reuse, RewardModel, Task, Work, clock,
};

/// How a pool of workers is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Workers, each of which runs a batch of its own.
    pub workers: usize,
    /// Threads of each worker.
    pub threads: usize,
    /// Bytes of prefixes' keys and values that are held between batches.
    pub prefix_bytes: u64,
    /// Bytes of the vision tower's outputs that are held between batches.
    pub vision_bytes: u64,
}

/// A backbone on one device of several, and what may be held there between batches.
#[derive(Debug)]
pub struct OnDevice<B: Backbone> {
    /// Its weights are on the device.
    pub model: B,
    /// Of its one worker.
    pub space: B::Space,
    /// Bytes of prefixes' keys and values.
    pub prefix_bytes: u64,
    /// Bytes of the vision tower's outputs.
    pub vision_bytes: u64,
}

/// A worker of a backbone. On the CPU all workers of a pool share one set of weights and the caches,
/// and each has its own threads. On other devices each worker has a device with weights and caches
/// of its own, and what another device holds is copied rather than computed.
///
/// Within a batch each image is seen once, each prefix computed once, and all responses are scored
/// in one packed pass.
#[derive(Debug)]
pub struct BackboneWorker<B: Backbone> {
    shared: Arc<Shared<B>>,
    space: B::Space,
    /// On images, since it was last asked for.
    seeing: Duration,
}

#[derive(Debug)]
struct Shared<B: Backbone> {
    model: B,
    facts: BackboneFacts,
    /// Of weights, adapter and types: part of every cache key.
    version: Arc<str>,
    places: Arc<Places<B>>,
    /// Its own of those.
    home: usize,
    /// Of one worker, until a batch has been measured.
    gflop_per_second: f64,
}

/// A group's prefix before the pass.
enum Prefix<'c, B: Backbone> {
    Held(Arc<B::Prefix>),
    /// To be computed, for the cache where the flight is ours.
    Missing(Option<PrefixFlight<'c, B>>, Arc<B::Features>, Seen),
}

/// Whether the vision tower had to run for an image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Now,
    Before,
}

type SeenImage<B> = (Arc<<B as Backbone>::Features>, Seen);

/// Images in one pass of the vision tower: enough for every core, and a bounded workspace.
const IMAGES_AT_A_TIME: usize = 8;
/// Responses in one pass of a model in which everything sees everything. Each is a prefix of its
/// own, which the budget of a batch counts once per group: packed all at once they would pass it.
const FULL_AT_A_TIME: usize = 4;
/// What a thread does at least, until a batch has been measured.
const GFLOP_PER_SECOND_AND_THREAD: f64 = 50.0;

// === impl PoolSettings ===

impl PoolSettings {
    /// One worker with this many threads, a gigabyte for prefixes, a quarter of one for images.
    pub fn with_threads(threads: usize) -> Self {
        Self { workers: 1, threads, prefix_bytes: 1 << 30, vision_bytes: 1 << 28 }
    }
}

// === impl BackboneWorker ===

impl<B: Backbone<Space = Workspace>> BackboneWorker<B> {
    /// The workers of a pool on the CPU over one model of this version.
    pub fn pool(model: B, version: &str, settings: PoolSettings) -> io::Result<Vec<Self>> {
        let PoolSettings { workers, threads, prefix_bytes, vision_bytes } = settings;
        let shared = Arc::new(Shared {
            facts: model.facts(),
            model,
            version: Arc::from(version),
            places: Arc::new(Places::new(vec![Caches::new(version, prefix_bytes, vision_bytes)])),
            home: 0,
            gflop_per_second: GFLOP_PER_SECOND_AND_THREAD * threads as f64,
        });
        (0..workers.max(1))
            .map(|_| Ok(Self::new(Arc::clone(&shared), Workspace::new(threads)?)))
            .collect()
    }
}

impl<B: Backbone> BackboneWorker<B> {
    /// A worker for each device, over models of one version. `gflop_per_second` is what a device does
    /// until a batch has been measured.
    pub fn on_devices(
        devices: Vec<OnDevice<B>>,
        version: &str,
        gflop_per_second: f64,
    ) -> Vec<Self> {
        let caches = devices.iter().map(|d| Caches::new(version, d.prefix_bytes, d.vision_bytes));
        let places = Arc::new(Places::new(caches.collect()));
        let devices = devices.into_iter().enumerate();
        devices
            .map(|(home, OnDevice { model, space, .. })| {
                let (places, version) = (Arc::clone(&places), Arc::from(version));
                let facts = model.facts();
                let shared = Shared { model, facts, version, places, home, gflop_per_second };
                Self::new(Arc::new(shared), space)
            })
            .collect()
    }

    fn new(shared: Arc<Shared<B>>, space: B::Space) -> Self {
        Self { shared, space, seeing: Duration::ZERO }
    }

    fn run(&mut self, batch: Vec<Task<B::Suffix>>) -> Result<Vec<Outcome<B::Suffix>>, PassError> {
        let shared = Arc::clone(&self.shared);
        let (items, mut parts): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|task| (task.prepared, Some(task.part))).unzip();
        if shared.facts.attention == SuffixAttention::Full {
            return self.run_full(&items);
        }
        let groups = groups(&items);
        let prefixes = self.prefixes(&shared, &groups, &items, &parts)?;
        let mut pass = Pass::default();
        let mut order = Vec::new();
        for (group, prefix) in groups.iter().zip(&prefixes) {
            let behind = match prefix {
                Prefix::Held(kv) => Behind::Cached(kv),
                Prefix::Missing(_, features, _) => {
                    pass.prefixes.push(NewPrefix { features: &**features, prompt: group.prompt });
                    Behind::New(pass.prefixes.len() - 1)
                }
            };
            for &item in &group.items {
                let tokens: &[u32] = &items[item].response;
                pass.suffixes.push(match parts[item].take() {
                    Some(Part::Next(so_far)) => Suffix::Next { so_far, tokens },
                    Some(Part::First) => Suffix::First { prefix: behind, tokens },
                    Some(Part::Whole) | None => Suffix::Whole { prefix: behind, tokens },
                });
                order.push(item);
            }
        }
        let done = shared.model.score(&mut self.space, pass)?;
        let reuse = reuse(&groups, &prefixes, shared.facts.image_tokens, items.len());
        land(prefixes, done.prefixes);
        let mut outcomes: Vec<(usize, Outcome<B::Suffix>)> = order
            .into_iter()
            .zip(done.logits.into_iter().zip(done.suffixes))
            .map(|(item, (logits, kept))| (item, Outcome { logits, kept, reuse: reuse[item] }))
            .collect();
        outcomes.sort_unstable_by_key(|&(item, _)| item);
        Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
    }

    /// Every response is a sequence of its own; only images are shared.
    fn run_full(&mut self, items: &[Prepared]) -> Result<Vec<Outcome<B::Suffix>>, PassError> {
        let shared = Arc::clone(&self.shared);
        let images: Vec<&Prepared> = items.iter().collect();
        let features = self.see(&shared, &images)?;
        let sequences: Vec<_> = items
            .iter()
            .zip(&features)
            .map(|(item, (features, _))| {
                (NewPrefix { features: &**features, prompt: &item.prompt }, &*item.response)
            })
            .collect();
        let mut logits = Vec::new();
        for sequences in sequences.chunks(FULL_AT_A_TIME) {
            logits.extend(shared.model.score_full(&mut self.space, sequences)?);
        }
        let vision = |seen| seen == Seen::Before;
        Ok(logits
            .into_iter()
            .zip(&features)
            .map(|(logits, &(_, seen))| {
                let reuse = Reuse { vision: vision(seen), ..Reuse::default() };
                Outcome { logits, kept: None, reuse }
            })
            .collect())
    }

    /// Each group's prefix, or what it takes to compute it.
    fn prefixes<'c>(
        &mut self,
        shared: &'c Shared<B>,
        groups: &[Group<'_>],
        items: &[Prepared],
        parts: &[Option<Part<B::Suffix>>],
    ) -> Result<Vec<Prefix<'c, B>>, PassError> {
        let found: Vec<Found<'c, B>> = groups
            .iter()
            .map(|group| {
                let pinned = group.items.iter().find_map(|&item| match &parts[item] {
                    Some(Part::Next(so_far)) => Some(Arc::clone(so_far.prefix())),
                    _ => None,
                });
                pinned.map_or_else(|| shared.prefix(&shared.key(group)), Found::Held)
            })
            .collect();
        let missing: Vec<&Prepared> = groups
            .iter()
            .zip(&found)
            .filter(|(_, found)| matches!(found, Found::Missing(_)))
            .map(|(group, _)| &items[group.items[0]])
            .collect();
        let mut features = self.see(shared, &missing)?.into_iter();
        Ok(found
            .into_iter()
            .filter_map(|found| match found {
                Found::Held(kv) => Some(Prefix::Held(kv)),
                Found::Missing(flight) => {
                    features.next().map(|(features, seen)| Prefix::Missing(flight, features, seen))
                }
            })
            .collect())
    }

    /// The vision tower's output for the image of each item: from the cache, from a worker that
    /// computes it just now, or computed here, each image once.
    fn see(
        &mut self,
        shared: &Shared<B>,
        items: &[&Prepared],
    ) -> Result<Vec<SeenImage<B>>, PassError> {
        let space = &mut self.space;
        let compute = |pixels: &[&Pixels]| {
            let mut features = Vec::with_capacity(pixels.len());
            for images in pixels.chunks(IMAGES_AT_A_TIME) {
                features.extend(shared.model.see(space, images)?);
            }
            Ok(features)
        };
        let images: Vec<([u8; 32], &Pixels)> =
            items.iter().map(|item| (item.image_key, &item.pixels)).collect();
        let start = clock::now();
        let bring = |image: &[u8; 32]| shared.bring_features(image);
        let seen = shared.own().vision(&images, bring, compute)?;
        if seen.iter().any(|(_, hit)| !hit) {
            self.seeing += clock::now().saturating_duration_since(start);
        }
        Ok(seen
            .into_iter()
            .map(|(features, hit)| (features, if hit { Seen::Before } else { Seen::Now }))
            .collect())
    }
}

impl<B: Backbone> RewardModel for BackboneWorker<B> {
    type Kept = B::Suffix;

    fn facts(&self) -> ModelFacts {
        let Shared { facts, gflop_per_second, .. } = &*self.shared;
        ModelFacts {
            image_tokens: facts.image_tokens,
            batch_invariant: facts.batch_invariant,
            incremental: facts.attention == SuffixAttention::Causal,
            kv: KvCost {
                page_rows: facts.kv_page_rows,
                row_bytes: facts.kv_page_bytes / facts.kv_page_rows as u64,
                layers: facts.layers,
            },
            gflop_per_second: *gflop_per_second,
            prefixes: Arc::clone(&self.shared) as _,
        }
    }

    fn work(&self, batch: &[Task<B::Suffix>]) -> Work {
        let Shared { facts, places, .. } = &*self.shared;
        let mut shape = PassShape::default();
        let mut images = Vec::new();
        let mut known = Vec::new();
        for Task { prepared, part } in batch {
            let prefix = facts.image_tokens + prepared.prompt.len();
            let key = (prepared.image_key, &prepared.prompt);
            if facts.attention == SuffixAttention::Full {
                shape.prefixes.push(prefix + prepared.response.len());
                if !images.contains(&key.0) && !places.hold_image(&key.0) {
                    images.push(key.0);
                }
                continue;
            }
            if !known.contains(&key) && !matches!(part, Part::Next(_)) {
                known.push(key);
                if !places.hold_prefix(&self.shared.key_of(prepared)) {
                    shape.prefixes.push(prefix);
                    if !images.contains(&key.0) && !places.hold_image(&key.0) {
                        images.push(key.0);
                    }
                }
            }
            let (past, kept) = match part {
                Part::Whole => (0, false),
                Part::First => (0, true),
                Part::Next(so_far) => (so_far.rows(), true),
            };
            let rows = prepared.response.len();
            shape.suffixes.push(SuffixShape { prefix, past, rows, kept });
        }
        shape.images = images.len();
        self.shared.cost(&shape)
    }

    fn score(
        &mut self,
        batch: Vec<Task<B::Suffix>>,
    ) -> Vec<Result<Outcome<B::Suffix>, ModelFailure>> {
        // An item that is malformed must not fail the others.
        let checked: Vec<_> = batch.iter().map(|task| self.shared.check(&task.prepared)).collect();
        let sound = batch.into_iter().zip(&checked).filter(|(_, checked)| checked.is_ok());
        let sound: Vec<_> = sound.map(|(task, _)| task).collect();
        let items = sound.len();
        let done = if items == 0 { Ok(Vec::new()) } else { self.run(sound) };
        let outcomes: Vec<_> = match done {
            Ok(outcomes) => outcomes.into_iter().map(finite).collect(),
            Err(error) => {
                let failure = self.shared.failure(error);
                (0..items).map(|_| Err(failure.clone())).collect()
            }
        };
        let mut outcomes = outcomes.into_iter();
        checked
            .into_iter()
            .filter_map(|checked| {
                checked.map_or_else(|failure| Some(Err(failure)), |()| outcomes.next())
            })
            .collect()
    }

    fn relieve(&mut self) {
        self.shared.own().clear();
    }

    /// A copy, where the item ran on another device before.
    fn take_over(&mut self, kept: B::Suffix, prepared: &Prepared) -> Option<B::Suffix> {
        let shared = &self.shared;
        if shared.model.can_read(&kept) {
            return Some(kept);
        }
        let prefix = match shared.prefix(&shared.key_of(prepared)) {
            Found::Held(prefix) => Ok(prefix),
            Found::Missing(_) => shared.model.bring_prefix(kept.prefix()),
        };
        match prefix.and_then(|prefix| shared.model.bring_suffix(kept, prefix)) {
            Ok(kept) => Some(kept),
            Err(error) => {
                tracing::warn!(%error, "an open item could not be copied, and is computed again");
                None
            }
        }
    }

    /// Its own keys and values: the prefix's belong to the cache.
    fn kept_bytes(kept: &B::Suffix) -> u64 {
        kept.bytes()
    }

    fn take_phases(&mut self) -> Phases {
        let PassTimes { prefixes, responses, head } = B::take_times(&mut self.space);
        let vision = std::mem::take(&mut self.seeing);
        Phases { vision, prefill: prefixes, suffix: responses, head }
    }

    fn memory(&self) -> Memory {
        let Shared { facts, places, .. } = &*self.shared;
        let (device, weights) = (facts.device, facts.weight_bytes * places.count() as u64);
        Memory { device, weights, workspace: B::space_bytes(&self.space) }
    }
}

/// Puts computed prefixes into the cache, where the flights were ours.
fn land<B: Backbone>(prefixes: Vec<Prefix<'_, B>>, computed: Vec<Arc<B::Prefix>>) {
    let flights = prefixes.into_iter().filter_map(|prefix| match prefix {
        Prefix::Missing(flight, ..) => Some(flight),
        Prefix::Held(_) => None,
    });
    for (flight, kv) in flights.zip(computed) {
        if let Some(flight) = flight {
            flight.land(&kv);
        }
    }
}

/// What each item of a batch found held: a prefix that is computed in the batch is charged to the
/// first item of its group.
fn reuse<B: Backbone>(
    groups: &[Group<'_>],
    prefixes: &[Prefix<'_, B>],
    image_tokens: usize,
    items: usize,
) -> Vec<Reuse> {
    let mut reuse = vec![Reuse::default(); items];
    for (group, prefix) in groups.iter().zip(prefixes) {
        let prefix_rows = image_tokens + group.prompt.len();
        for (place, &item) in group.items.iter().enumerate() {
            let (prefix, vision) = match prefix {
                Prefix::Missing(_, _, seen) if place == 0 => (false, *seen == Seen::Before),
                Prefix::Held(_) | Prefix::Missing(..) => (true, true),
            };
            reuse[item] = Reuse { prefix_rows, prefix, vision };
        }
    }
    reuse
}

// === impl Shared ===

impl<B: Backbone> Shared<B> {
    fn key(&self, group: &Group<'_>) -> Key {
        Key {
            version: Arc::clone(&self.version),
            image: group.image_key,
            prompt: Arc::clone(group.prompt),
        }
    }

    fn key_of(&self, item: &Prepared) -> Key {
        Key {
            version: Arc::clone(&self.version),
            image: item.image_key,
            prompt: Arc::clone(&item.prompt),
        }
    }

    fn own(&self) -> &Caches<B> {
        self.places.at(self.home)
    }

    /// A prefix that is held here, or copied here from another device.
    fn prefix(&self, key: &Key) -> Found<'_, B> {
        let found = self.own().prefix(key.clone());
        let Found::Missing(Some(flight)) = found else { return found };
        let Some(elsewhere) = self.places.prefix_elsewhere(self.home, key) else {
            return Found::Missing(Some(flight));
        };
        match self.model.bring_prefix(&elsewhere) {
            Ok(copy) => {
                self.own().count_copy();
                flight.land(&copy);
                Found::Held(copy)
            }
            Err(error) => {
                tracing::warn!(%error, "a prefix could not be copied, and is computed");
                Found::Missing(Some(flight))
            }
        }
    }

    /// An image's features from another device.
    fn bring_features(&self, image: &[u8; 32]) -> Option<Arc<B::Features>> {
        let elsewhere = self.places.features_elsewhere(self.home, image)?;
        match self.model.bring_features(&elsewhere) {
            Ok(copy) => Some(copy),
            Err(error) => {
                tracing::warn!(%error, "an image could not be copied, and is seen again");
                None
            }
        }
    }

    /// Whether an item can be computed at all.
    fn check(&self, item: &Prepared) -> Result<(), ModelFailure> {
        let checked = self.model.check(&item.pixels, &item.prompt);
        checked.map_err(|error| ModelFailure::Forward(error.to_string()))
    }

    /// What a failed pass says of the device.
    fn failure(&self, error: PassError) -> ModelFailure {
        match error {
            PassError::OutOfMemory => ModelFailure::OutOfMemory,
            PassError::DeviceLost(why) => {
                self.places.lose(self.home);
                ModelFailure::DeviceLost(why)
            }
            error => ModelFailure::Forward(error.to_string()),
        }
    }

    fn cost(&self, shape: &PassShape) -> Work {
        let cost = self.model.cost(shape);
        Work { linear: cost.linear, attention: cost.attention, vision: cost.vision }
    }
}

impl<B: Backbone> Prefixes for Shared<B> {
    fn is_resident(&self, image_key: &[u8; 32], prompt: &Arc<[u32]>) -> bool {
        let (version, prompt) = (Arc::clone(&self.version), Arc::clone(prompt));
        self.places.hold_prefix(&Key { version, image: *image_key, prompt })
    }

    fn item_work(&self, shape: &ItemShape) -> Work {
        let &ItemShape { prompt, tokens, past } = shape;
        let prefix = self.facts.image_tokens + prompt;
        let pass = match self.facts.attention {
            // All of it, each time.
            SuffixAttention::Full => {
                PassShape { prefixes: vec![prefix + tokens], ..PassShape::default() }
            }
            SuffixAttention::Causal => {
                let suffix = SuffixShape { prefix, past, rows: tokens, kept: past > 0 };
                PassShape { suffixes: vec![suffix], ..PassShape::default() }
            }
        };
        self.cost(&pass)
    }

    fn prefix_work(&self, image_key: &[u8; 32], prompt: usize) -> Work {
        let images = usize::from(!self.places.hold_image(image_key));
        let prefixes = match self.facts.attention {
            SuffixAttention::Full => Vec::new(),
            SuffixAttention::Causal => vec![self.facts.image_tokens + prompt],
        };
        self.cost(&PassShape { images, prefixes, ..PassShape::default() })
    }

    fn prefix_stats(&self) -> CacheStats {
        self.places.prefix_stats()
    }

    fn vision_stats(&self) -> CacheStats {
        self.places.vision_stats()
    }
}

fn finite<K>(outcome: Outcome<K>) -> Result<Outcome<K>, ModelFailure> {
    let all = outcome.logits.iter().all(|x| x.is_finite());
    if all { Ok(outcome) } else { Err(ModelFailure::NotFinite) }
}

#[cfg(test)]
mod devices;
#[cfg(test)]
mod same_bits;
#[cfg(test)]
mod tests;
