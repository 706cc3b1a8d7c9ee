use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::fault::Fault;

/// Whether a device of a pool does work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Serving,
    /// It was lost just now: jobs that wait are being sent back.
    Draining(Fault),
    /// It is out of service until the process ends. Nothing is reset: a context that was lost takes
    /// its process's other work on that device with it.
    Lost(Fault),
}

/// Told of every change, on the thread of the device's owner.
pub type HealthListener = Box<dyn Fn(u32, Health) + Send + Sync>;

/// Counts changes of health, so that who looks can wait for the next.
#[derive(Default)]
pub(crate) struct HealthWatch {
    version: Mutex<u64>,
    changed: Condvar,
    listeners: Mutex<Vec<HealthListener>>,
}

// === impl HealthWatch ===

impl HealthWatch {
    pub(crate) fn announce(&self, ordinal: u32, health: Health) {
        for listener in lock(&self.listeners).iter() {
            // A listener that panics must not take the owner's thread with it.
            let _ = catch_unwind(AssertUnwindSafe(|| listener(ordinal, health)));
        }
        *lock(&self.version) += 1;
        self.changed.notify_all();
    }

    pub(crate) fn listen(&self, listener: HealthListener) {
        lock(&self.listeners).push(listener);
    }

    pub(crate) fn version(&self) -> u64 {
        *lock(&self.version)
    }

    /// The version, once it is above `seen` or the time is over.
    pub(crate) fn wait_past(&self, seen: u64, at_most: Duration) -> u64 {
        let (version, _) = self
            .changed
            .wait_timeout_while(lock(&self.version), at_most, |version| *version <= seen)
            .unwrap_or_else(PoisonError::into_inner);
        *version
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
