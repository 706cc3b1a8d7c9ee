use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::cache::{Cache, Lookup};
use crate::{
    CacheStats, ItemShape, KvCost, ModelFacts, ModelFailure, Outcome, Part, Phases, Prefixes,
    Reuse, RewardModel, Task, Work,
};

/// How a device that does not exist behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimulatedDevice {
    /// What every batch takes, however small.
    pub batch_time: Duration,
    /// Tokens per second beyond that: those of responses, and those of prefixes that were not
    /// seen lately.
    pub tokens_per_second: f64,
    /// Rows of the image part of a prefix.
    pub image_tokens: usize,
    /// Prefixes that count as held.
    pub prefixes: NonZeroUsize,
}

/// A model that takes time and no CPU, and gives rewards that mean nothing: for load tests of a
/// server and of what stands before it.
#[derive(Debug)]
pub struct SimulatedModel {
    shared: Arc<Shared>,
    /// What the last batch took.
    took: Duration,
}

type PrefixKey = ([u8; 32], Arc<[u32]>);

#[derive(Debug)]
struct Shared {
    device: SimulatedDevice,
    /// Prefixes, each of which counts for one byte.
    held: Mutex<Cache<PrefixKey, ()>>,
}

/// Tokens of "work" are counted in units that the cost model takes for 1e9 operations.
const GFLOP_PER_TOKEN: f64 = 1e-3;

// === impl SimulatedModel ===

impl SimulatedModel {
    /// `workers` workers of one device each.
    pub fn pool(workers: NonZeroUsize, device: SimulatedDevice) -> Vec<Self> {
        let held = Mutex::new(Cache::new(device.prefixes.get() as u64));
        let shared = Arc::new(Shared { device, held });
        (0..workers.get())
            .map(|_| Self { shared: Arc::clone(&shared), took: Duration::ZERO })
            .collect()
    }
}

impl RewardModel for SimulatedModel {
    type Kept = usize;

    fn facts(&self) -> ModelFacts {
        let SimulatedDevice { image_tokens, tokens_per_second, .. } = self.shared.device;
        ModelFacts {
            image_tokens,
            batch_invariant: true,
            incremental: true,
            kv: KvCost { page_rows: 64, row_bytes: 1024, layers: 1 },
            gflop_per_second: tokens_per_second * GFLOP_PER_TOKEN,
            prefixes: Arc::clone(&self.shared) as _,
        }
    }

    fn work(&self, batch: &[Task<usize>]) -> Work {
        let own: usize = batch.iter().map(|task| task.prepared.response.len()).sum();
        let held = self.shared.lock();
        let mut known = HashSet::new();
        let mut prefixes = 0;
        for Task { prepared, .. } in batch {
            let key = (prepared.image_key, Arc::clone(&prepared.prompt));
            if !held.peek(&key) && known.insert(key) {
                prefixes += self.shared.device.image_tokens + prepared.prompt.len();
            }
        }
        work(own + prefixes)
    }

    fn score(&mut self, batch: Vec<Task<usize>>) -> Vec<Result<Outcome<usize>, ModelFailure>> {
        let SimulatedDevice { batch_time, tokens_per_second, .. } = self.shared.device;
        let tokens = self.work(&batch).linear / GFLOP_PER_TOKEN;
        let computing = Duration::try_from_secs_f64(tokens / tokens_per_second);
        self.took = batch_time.saturating_add(computing.unwrap_or_default());
        thread::sleep(self.took);
        batch.into_iter().map(|task| Ok(self.shared.outcome(task))).collect()
    }

    fn kept_bytes(kept: &usize) -> u64 {
        *kept as u64
    }

    fn take_phases(&mut self) -> Phases {
        Phases { suffix: std::mem::take(&mut self.took), ..Phases::default() }
    }
}

fn work(tokens: usize) -> Work {
    Work { linear: tokens as f64 * GFLOP_PER_TOKEN, ..Work::default() }
}

// === impl Shared ===

impl Shared {
    fn outcome(&self, task: Task<usize>) -> Outcome<usize> {
        let Task { prepared, part } = task;
        let prefix = self.see((prepared.image_key, Arc::clone(&prepared.prompt)));
        let kept = match part {
            Part::Whole => None,
            Part::First => Some(prepared.response.len()),
            Part::Next(before) => Some(before + prepared.response.len()),
        };
        let logits = prepared.response.iter().map(|id| (id % 16) as f32 / 2.0 - 3.0).collect();
        let prefix_rows = self.device.image_tokens + prepared.prompt.len();
        Outcome { logits, kept, reuse: Reuse { prefix_rows, prefix, vision: prefix } }
    }

    /// Whether a prefix is held; from now on it is.
    fn see(&self, key: PrefixKey) -> bool {
        let mut held = self.lock();
        match held.lookup(&key) {
            Lookup::Hit(_) => true,
            // The lock is held from a miss until its end, so nobody meets it busy.
            Lookup::Miss | Lookup::Busy => {
                held.fulfil(key, &Arc::new(()), 1);
                false
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Cache<PrefixKey, ()>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prefixes for Shared {
    fn is_resident(&self, image_key: &[u8; 32], prompt: &Arc<[u32]>) -> bool {
        self.lock().peek(&(*image_key, Arc::clone(prompt)))
    }

    fn item_work(&self, shape: &ItemShape) -> Work {
        work(shape.tokens)
    }

    fn prefix_work(&self, _: &[u8; 32], prompt: usize) -> Work {
        work(self.device.image_tokens + prompt)
    }

    fn prefix_stats(&self) -> CacheStats {
        self.lock().stats()
    }

    fn vision_stats(&self) -> CacheStats {
        CacheStats::default()
    }
}
