use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::budget::MemoryShare;
use crate::device::{Device, Shared};
use crate::discovery::{Discovery, Fitness, UnfitReason};
use crate::fault::Fault;
use crate::health::{Health, HealthListener, HealthWatch};
use crate::oneshot;
use crate::owner::{self, Gate};
use crate::peers::PeerMatrix;
use crate::transfer::{Counters, Transfer};

/// How a pool works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// How much of each device's free memory segments may take.
    pub memory_share: MemoryShare,
    /// Jobs that may wait for a device; at least 1.
    pub queue: usize,
    /// Bytes of each of the two pinned buffers that a device has for copies through the host; at
    /// least 1.
    pub chunk_bytes: usize,
    /// Whether segments get a checksum, with which every copy is compared before anybody uses it.
    /// It costs a read back of each segment and each copy.
    pub verify: bool,
}

/// Devices in service, each with an owner: one thread with one stream, on which all calls for the
/// device are made. Dropping the pool ends the jobs that run, sends the others back, frees
/// everything and joins the threads.
#[derive(Debug)]
pub struct Pool {
    fleet: Arc<Fleet>,
    owners: Vec<JoinHandle<()>>,
    left_out: Vec<(u32, UnfitReason)>,
}

/// What outlives the pool in the hands of those who copy.
pub(crate) struct Fleet {
    devices: BTreeMap<u32, Device>,
    peers: Mutex<PeerMatrix>,
    watch: Arc<HealthWatch>,
    pub(crate) counters: Counters,
    pub(crate) chunk_bytes: usize,
}

// === impl PoolSettings ===

impl Default for PoolSettings {
    fn default() -> Self {
        Self { memory_share: MemoryShare::ALL, queue: 64, chunk_bytes: 4 << 20, verify: false }
    }
}

// === impl Pool ===

impl Pool {
    /// Opens devices. One that cannot be opened is left out and stands in nobody's way.
    pub fn open(discovery: &Discovery, ordinals: &[u32], settings: PoolSettings) -> Self {
        let watch = Arc::new(HealthWatch::default());
        let gate = Arc::new(Gate::new());
        let mut pool =
            Self { fleet: Arc::new(Fleet::empty()), owners: Vec::new(), left_out: Vec::new() };
        let mut devices = BTreeMap::new();
        for ordinal in ordinals {
            if devices.contains_key(ordinal) {
                continue;
            }
            let opened = fit(discovery, *ordinal).and_then(|()| {
                open(*ordinal, settings, &watch, &gate).map_err(UnfitReason::NoAnswer)
            });
            match opened {
                Ok((device, thread)) => {
                    devices.insert(*ordinal, device);
                    pool.owners.push(thread);
                }
                Err(reason) => pool.left_out.push((*ordinal, reason)),
            }
        }
        pool.fleet = Arc::new(Fleet {
            devices,
            peers: Mutex::new(discovery.peers.clone()),
            watch,
            counters: Counters::default(),
            chunk_bytes: settings.chunk_bytes.max(1),
        });
        pool
    }

    /// A device by its number.
    pub fn device(&self, ordinal: u32) -> Option<&Device> {
        self.fleet.device(ordinal)
    }

    /// All devices, by number; those that were lost too.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.fleet.devices.values()
    }

    /// Devices that were asked for and could not be opened.
    pub fn left_out(&self) -> &[(u32, UnfitReason)] {
        &self.left_out
    }

    /// Every device's health, by number.
    pub fn health(&self) -> Vec<(u32, Health)> {
        self.devices().map(|device| (device.ordinal(), device.health())).collect()
    }

    /// How often some device's health has changed.
    pub fn health_version(&self) -> u64 {
        self.fleet.watch.version()
    }

    /// Waits until health has changed more than `seen` times, or the time is over; how often it
    /// has.
    pub fn wait_for_health(&self, seen: u64, at_most: Duration) -> u64 {
        self.fleet.watch.wait_past(seen, at_most)
    }

    /// Has `listener` told of every change from now on, on the thread of the device's owner. It
    /// must not wait for a device, nor add a listener.
    pub fn on_health(&self, listener: HealthListener) {
        self.fleet.watch.listen(listener);
    }

    /// Which devices reach each other, without those whose access was withdrawn meanwhile.
    pub fn peers(&self) -> PeerMatrix {
        self.fleet.peers().clone()
    }

    /// Copies between the pool's devices.
    pub fn transfer(&self) -> Transfer {
        Transfer::new(Arc::clone(&self.fleet))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for device in self.fleet.devices.values() {
            device.shared().mailbox.close();
        }
        // A job that holds the pool may drop it on an owner's thread. The others wait for that one
        // before they end, so it cannot wait for them: all end by themselves then.
        if owner::is_current() {
            return;
        }
        for owner in self.owners.drain(..) {
            drop(owner.join());
        }
    }
}

/// Whether discovery found the device well.
fn fit(discovery: &Discovery, ordinal: u32) -> Result<(), UnfitReason> {
    match discovery.devices.iter().find(|device| device.ordinal == ordinal) {
        Some(device) => match &device.fitness {
            Fitness::Healthy => Ok(()),
            Fitness::Unfit(reason) => Err(reason.clone()),
        },
        None => Err(UnfitReason::NoAnswer(Fault { call: "cuDeviceGet", code: 101 })),
    }
}

fn open(
    ordinal: u32,
    settings: PoolSettings,
    watch: &Arc<HealthWatch>,
    gate: &Arc<Gate>,
) -> Result<(Device, JoinHandle<()>), Fault> {
    let shared = Arc::new(Shared::new(ordinal, settings.queue, settings.verify, Arc::clone(watch)));
    let (ready, opened) = oneshot::channel();
    gate.enter();
    let thread = {
        let (shared, gate) = (Arc::clone(&shared), Arc::clone(gate));
        thread::Builder::new()
            .name(format!("cuda-{ordinal}"))
            .spawn(move || owner::serve(&shared, settings.memory_share, &gate, ready))
    };
    let thread = thread.map_err(|_| {
        gate.leave();
        Fault { call: "a thread for the device", code: 304 }
    })?;
    match opened.wait().unwrap_or(Err(Fault { call: "opening the device", code: 999 })) {
        Ok(()) => Ok((Device::new(shared), thread)),
        Err(fault) => {
            drop(thread.join());
            Err(fault)
        }
    }
}

// === impl Fleet ===

impl Fleet {
    fn empty() -> Self {
        Self {
            devices: BTreeMap::new(),
            peers: Mutex::default(),
            watch: Arc::default(),
            counters: Counters::default(),
            chunk_bytes: 1,
        }
    }

    pub(crate) fn device(&self, ordinal: u32) -> Option<&Device> {
        self.devices.get(&ordinal)
    }

    pub(crate) fn peers(&self) -> MutexGuard<'_, PeerMatrix> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("devices", &self.devices).finish_non_exhaustive()
    }
}
