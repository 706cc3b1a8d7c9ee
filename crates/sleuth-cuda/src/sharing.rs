//! One copy per device of what many ask for.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::budget::Exhausted;
use crate::directory::{Directory, FlightId, Landed, Retry, Want};
use crate::fault::{Fault, FaultClass, INVALID_VALUE};
use crate::owner;
use crate::peers::PeerMatrix;
use crate::segment::Key;
use crate::transfer::{Route, TransferError};

mod segments;

/// What makes copies. [`Transfer`](crate::Transfer) copies segments; who keeps something else, such
/// as tensors, implements this with its own memory and [`Transfer::copy`](crate::Transfer::copy).
pub trait Copier: Send + Sync + 'static {
    /// A copy on some device. A clone is the same copy.
    type Copy: Clone + Send + 'static;

    /// Makes a copy on device `to`. Called from threads that are no owner's, for many keys at once.
    ///
    /// # Errors
    /// [`TransferError`]; after `Source` and `Corrupt` another holder is tried.
    fn copy(&self, source: &Self::Copy, to: u32) -> Result<Copied<Self::Copy>, TransferError>;
}

/// A copy that was made.
#[derive(Clone, Debug)]
pub struct Copied<C> {
    /// The copy.
    pub copy: C,
    /// The way that it took.
    pub route: Route,
    /// Its length.
    pub bytes: u64,
}

/// A directory of copies, which makes those that are missing on a device from those that others
/// hold.
pub struct Sharing<C: Copier> {
    copier: C,
    table: Mutex<Table<C::Copy>>,
    counters: Counters,
}

/// What sharing has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharingStats {
    /// Copies directly from device to device.
    pub peer_copies: u64,
    /// Their bytes.
    pub peer_bytes: u64,
    /// Copies through the host.
    pub host_copies: u64,
    /// Their bytes.
    pub host_bytes: u64,
    /// Callers who waited for a copy that another caller had begun.
    pub joined: u64,
    /// Tries to copy that failed, whether or not another succeeded. Corrupt ones count too.
    pub failed: u64,
    /// Copies that arrived with other bytes, and were thrown away.
    pub corrupt: u64,
}

/// A key could not be had on a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObtainError {
    /// No device holds it, or none that could send it: compute it.
    #[error("no device holds it: compute it")]
    Missing,
    /// The device has no room.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The device was lost.
    #[error("device {0} was lost")]
    DeviceLost(u32),
    /// The device failed and is still there.
    #[error("device {ordinal} could not receive: {fault}")]
    Fault {
        /// The device.
        ordinal: u32,
        /// What happened.
        fault: Fault,
    },
    /// It could not be asked for like this.
    #[error(transparent)]
    Refused(TransferError),
}

struct Table<C> {
    directory: Directory<C>,
    waiting: HashMap<FlightId, Arc<Landing<C>>>,
}

/// Where those who joined a flight wait for its end.
struct Landing<C> {
    ended: Mutex<Option<Result<C, ObtainError>>>,
    told: Condvar,
}

#[derive(Default)]
struct Counters {
    peer_copies: AtomicU64,
    peer_bytes: AtomicU64,
    host_copies: AtomicU64,
    host_bytes: AtomicU64,
    joined: AtomicU64,
    failed: AtomicU64,
    corrupt: AtomicU64,
}

// === impl Sharing ===

impl<C: Copier> Sharing<C> {
    /// An empty directory over devices that reach each other like this.
    pub fn new(copier: C, peers: PeerMatrix) -> Self {
        let table = Table { directory: Directory::new(peers), waiting: HashMap::new() };
        Self { copier, table: Mutex::new(table), counters: Counters::default() }
    }

    /// What device `on` holds under `key`, copied from another device if need be. Blocks for the
    /// copy, so it is not for threads of an async runtime; of many callers at once one copies and
    /// the others get what it gets. On an owner's thread it gives what the device holds already,
    /// and refuses to wait for more.
    ///
    /// # Errors
    /// [`ObtainError`]; after [`ObtainError::Missing`] compute it and [`insert`](Self::insert) it.
    pub fn obtain(&self, key: Key, on: u32) -> Result<C::Copy, ObtainError> {
        let mut table = self.lock();
        if owner::is_current() {
            return table.directory.held(key, on).ok_or_else(|| {
                match table.directory.holders(key)[..] {
                    [] => ObtainError::Missing,
                    [..] => ObtainError::Refused(TransferError::OnOwnerThread),
                }
            });
        }
        let (flight, from, source) = match table.directory.want(key, on) {
            Want::Local(copy) => return Ok(copy),
            Want::Missing => return Err(ObtainError::Missing),
            Want::Lost => return Err(ObtainError::DeviceLost(on)),
            Want::Join(flight) => {
                let landing = table.waiting.get(&flight).cloned();
                drop(table);
                Counters::add(&self.counters.joined, 1);
                return landing.map_or(Err(ObtainError::Missing), |landing| landing.wait());
            }
            Want::Lead { flight, from, source } => {
                table.waiting.insert(flight, Arc::new(Landing::new()));
                (flight, from, source)
            }
        };
        drop(table);
        let mut lead = Lead { sharing: self, flight, from, on, ended: false };
        let result = lead.fly(source);
        lead.ended = true;
        result
    }

    /// Notes that device `on` holds a copy, and returns what it holds: the first one where somebody
    /// was quicker. None where the device was lost.
    pub fn insert(&self, key: Key, on: u32, copy: C::Copy) -> Option<C::Copy> {
        self.lock().directory.insert(key, on, copy)
    }

    /// Forgets a device's copy, so that its memory is free once nobody uses it.
    pub fn remove(&self, key: Key, on: u32) -> Option<C::Copy> {
        self.lock().directory.remove(key, on)
    }

    /// Forgets all that a lost device held; who waits for a copy to it is told.
    pub fn forget_device(&self, ordinal: u32) {
        let (copies, landings) = {
            let mut table = self.lock();
            let forgotten = table.directory.forget_device(ordinal);
            let waiting = &mut table.waiting;
            let landings: Vec<_> =
                forgotten.flights.iter().filter_map(|flight| waiting.remove(flight)).collect();
            (forgotten.copies, landings)
        };
        drop(copies);
        for landing in landings {
            landing.tell(Err(ObtainError::DeviceLost(ordinal)));
        }
    }

    /// Devices that hold a copy, by number.
    pub fn holders(&self, key: Key) -> Vec<u32> {
        self.lock().directory.holders(key)
    }

    /// Keys that a device holds.
    pub fn keys_on(&self, ordinal: u32) -> Vec<Key> {
        self.lock().directory.keys_on(ordinal)
    }

    /// What was done so far.
    pub fn stats(&self) -> SharingStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SharingStats {
            peer_copies: read(&self.counters.peer_copies),
            peer_bytes: read(&self.counters.peer_bytes),
            host_copies: read(&self.counters.host_copies),
            host_bytes: read(&self.counters.host_bytes),
            joined: read(&self.counters.joined),
            failed: read(&self.counters.failed),
            corrupt: read(&self.counters.corrupt),
        }
    }

    /// What makes its copies.
    pub fn copier(&self) -> &C {
        &self.copier
    }

    fn lock(&self) -> MutexGuard<'_, Table<C::Copy>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Copier> fmt::Debug for Sharing<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharing").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

// === impl Lead ===

/// The caller who copies for all. Whatever happens to it, those who joined are told.
struct Lead<'a, C: Copier> {
    sharing: &'a Sharing<C>,
    flight: FlightId,
    from: u32,
    on: u32,
    ended: bool,
}

impl<C: Copier> Lead<'_, C> {
    fn fly(&mut self, mut source: C::Copy) -> Result<C::Copy, ObtainError> {
        loop {
            let error = match self.sharing.copier.copy(&source, self.on) {
                Ok(copied) => return self.land(copied),
                Err(error) => error,
            };
            Counters::add(&self.sharing.counters.failed, 1);
            if let TransferError::Corrupt { .. } = error {
                Counters::add(&self.sharing.counters.corrupt, 1);
            }
            match error {
                TransferError::Source { .. } | TransferError::Corrupt { .. } => {
                    let retry = self.sharing.lock().directory.source_failed(self.flight);
                    match retry {
                        Retry::From { from, source: other } => {
                            self.from = from;
                            source = other;
                        }
                        Retry::Missing => return self.tell(Err(ObtainError::Missing)),
                        Retry::Stale => return Err(ObtainError::DeviceLost(self.on)),
                    }
                }
                error => return self.fail(error),
            }
        }
    }

    fn land(&mut self, copied: Copied<C::Copy>) -> Result<C::Copy, ObtainError> {
        self.sharing.counters.count(copied.route, copied.bytes);
        let landed = {
            let mut table = self.sharing.lock();
            if copied.route == Route::Host {
                table.directory.withdraw_peer(self.from, self.on);
            }
            table.directory.land(self.flight, copied.copy)
        };
        match landed {
            Landed::Held(copy) => self.tell(Ok(copy)),
            Landed::Stale => Err(ObtainError::DeviceLost(self.on)),
        }
    }

    fn fail(&mut self, error: TransferError) -> Result<C::Copy, ObtainError> {
        self.sharing.lock().directory.end(self.flight);
        self.tell(Err(match error {
            TransferError::Exhausted(exhausted) => ObtainError::Exhausted(exhausted),
            TransferError::Destination { ordinal, fault } if fault.class() == FaultClass::Lost => {
                ObtainError::DeviceLost(ordinal)
            }
            TransferError::Destination { ordinal, fault } => ObtainError::Fault { ordinal, fault },
            other => ObtainError::Refused(other),
        }))
    }

    fn tell(&self, result: Result<C::Copy, ObtainError>) -> Result<C::Copy, ObtainError> {
        let landing = self.sharing.lock().waiting.remove(&self.flight);
        if let Some(landing) = landing {
            landing.tell(result.clone());
        }
        result
    }
}

impl<C: Copier> Drop for Lead<'_, C> {
    fn drop(&mut self) {
        if !self.ended {
            // The copier panicked.
            let fault = Fault { call: "a copy that panicked", code: INVALID_VALUE };
            let _ = self.fail(TransferError::Destination { ordinal: self.on, fault });
        }
    }
}

// === impl Landing ===

impl<C: Clone> Landing<C> {
    fn new() -> Self {
        Self { ended: Mutex::new(None), told: Condvar::new() }
    }

    fn wait(&self) -> Result<C, ObtainError> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = self
            .told
            .wait_while(ended, |ended| ended.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        ended.clone().unwrap_or(Err(ObtainError::Missing))
    }

    fn tell(&self, result: Result<C, ObtainError>) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.told.notify_all();
    }
}

// === impl Counters ===

impl Counters {
    fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    fn count(&self, route: Route, bytes: u64) {
        let (copies, moved) = match route {
            Route::Local => return,
            Route::Peer => (&self.peer_copies, &self.peer_bytes),
            Route::Host => (&self.host_copies, &self.host_bytes),
        };
        Self::add(copies, 1);
        Self::add(moved, bytes);
    }
}

#[cfg(test)]
mod tests;
