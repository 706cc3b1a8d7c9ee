use serde::Serialize;

use crate::discovery::{DeviceFacts, Discovery, Driver, Fitness};
use crate::placement::{Placed, Plan};

/// What there is and what would be placed where, for scripts. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The newest CUDA that the driver supports, such as `13.0`.
    pub driver: Option<String>,
    /// Why there is no driver.
    pub no_driver: Option<String>,
    /// By ordinal.
    pub devices: Vec<ListedDevice>,
    /// Pairs of ordinals, from and to, between which bytes are copied directly; others go through the host.
    pub peers: Vec<(u32, u32)>,
    /// By free memory, most first.
    pub replicas: Vec<ListedReplica>,
    /// Devices without a replica.
    pub left_out: Vec<LeftOut>,
    /// Replicas that were wanted and found no room.
    pub short: usize,
}

/// A device, as far as it answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedDevice {
    /// Its number.
    pub ordinal: u32,
    /// As `NVIDIA H100 80GB HBM3`.
    pub name: Option<String>,
    /// As `GPU-…`.
    pub uuid: Option<String>,
    /// As `0000:3B:00.0`.
    pub pci_bus_id: Option<String>,
    /// As `9.0`.
    pub compute_capability: Option<String>,
    /// Whether its memory corrects errors.
    pub ecc: Option<bool>,
    /// All of its memory; 0 where it did not answer.
    pub total_bytes: u64,
    /// What was free; 0 where it did not answer.
    pub free_bytes: u64,
    /// Why it cannot serve; `None` where it can.
    pub unfit: Option<String>,
}

/// A replica on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedReplica {
    /// The device.
    pub ordinal: u32,
    /// For weights.
    pub weight_bytes: u64,
    /// For a pass.
    pub workspace_bytes: u64,
    /// For keys and values.
    pub cache_bytes: u64,
}

/// A device without a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The device.
    pub ordinal: u32,
    /// Why.
    pub why: String,
}

// === impl Listing ===

impl Listing {
    /// Of what was found and planned.
    pub fn new(discovery: &Discovery, plan: &Plan) -> Self {
        let (driver, no_driver) = match &discovery.driver {
            Driver::Present(version) => (Some(version.to_string()), None),
            Driver::Absent(reason) => (None, Some(reason.to_string())),
        };
        let left_out = plan.left_out.iter();
        Self {
            driver,
            no_driver,
            devices: discovery.devices.iter().map(ListedDevice::new).collect(),
            peers: discovery.peers.pairs().collect(),
            replicas: plan.replicas.iter().map(ListedReplica::new).collect(),
            left_out: left_out
                .map(|(ordinal, why)| LeftOut { ordinal: *ordinal, why: why.to_string() })
                .collect(),
            short: plan.short,
        }
    }
}

// === impl ListedDevice ===

impl ListedDevice {
    fn new(facts: &DeviceFacts) -> Self {
        Self {
            ordinal: facts.ordinal,
            name: facts.name.clone(),
            uuid: facts.uuid.map(|uuid| uuid.to_string()),
            pci_bus_id: facts.pci_bus_id.clone(),
            compute_capability: facts.compute_capability.map(|found| found.to_string()),
            ecc: facts.ecc,
            total_bytes: facts.total_bytes,
            free_bytes: facts.free_bytes,
            unfit: match &facts.fitness {
                Fitness::Healthy => None,
                Fitness::Unfit(reason) => Some(reason.to_string()),
            },
        }
    }
}

// === impl ListedReplica ===

impl ListedReplica {
    const fn new(placed: &Placed) -> Self {
        Self {
            ordinal: placed.ordinal,
            weight_bytes: placed.weights,
            workspace_bytes: placed.workspace,
            cache_bytes: placed.cache_bytes,
        }
    }
}
