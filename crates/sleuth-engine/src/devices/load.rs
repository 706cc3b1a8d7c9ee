use std::sync::Arc;

use candle_core::Device;
use sleuth_cuda::{ComputeCapability, Discovery, Kernels, Placed, Pool, PoolSettings};
use sleuth_models::device::{BetweenDevices, Courier, DeviceModel, DeviceSpace};
use sleuth_models::{LoadError, ModelFolder};

use super::{Devices, GFLOP_PER_SECOND};
use crate::{BackboneWorker, OnDevice};

/// What candle's kernels were compiled for: its build reads the same variable, or asks the machine
/// that it builds on.
const BUILT_FOR: Option<&str> = option_env!("CUDA_COMPUTE_CAP");
/// Of what weights and a pass leave, as parts of four: for prefixes, and for images. The rest is for
/// the keys and values of what runs and of open items.
const PREFIX_PARTS: u64 = 2;
const VISION_PARTS: u64 = 1;
const PARTS: u64 = 4;

/// Marks devices for which there are no kernels.
pub(super) fn require_kernels(discovery: &mut Discovery) {
    let capability = BUILT_FOR
        .and_then(|text| text.parse().ok())
        .map(|number: u32| ComputeCapability::new(number / 10, number % 10));
    if let Some(capability) = capability {
        let built_for = [capability];
        discovery.require(&Kernels { sass: &built_for, ptx: &built_for });
    }
}

impl Devices {
    /// A worker on each planned device, with the folder's weights on it. `version` is of weights,
    /// adapter and types.
    pub fn load(
        &self,
        folder: &ModelFolder,
        version: &str,
    ) -> Result<Vec<BackboneWorker<DeviceModel>>, LoadError> {
        let ordinals: Vec<u32> = self.plan.replicas.iter().map(|placed| placed.ordinal).collect();
        let pool = Pool::open(&self.discovery, &ordinals, PoolSettings::default());
        let courier: Arc<dyn Courier> = Arc::new(BetweenDevices::new(pool));
        let devices = self.plan.replicas.iter().map(|placed| self.on(placed, folder, &courier));
        let devices = devices.collect::<Result<Vec<_>, _>>()?;
        Ok(BackboneWorker::on_devices(devices, version, GFLOP_PER_SECOND))
    }

    fn on(
        &self,
        placed: &Placed,
        folder: &ModelFolder,
        courier: &Arc<dyn Courier>,
    ) -> Result<OnDevice<DeviceModel>, LoadError> {
        let device = Device::new_cuda_with_stream(placed.ordinal as usize)?;
        let model = DeviceModel::load(folder, &device, self.choice.model, Arc::clone(courier))?;
        tracing::info!(
            device = placed.ordinal,
            weight_mib = placed.weights >> 20,
            cache_mib = placed.cache_bytes >> 20,
            "a device holds a replica"
        );
        Ok(OnDevice {
            model,
            space: DeviceSpace::default(),
            prefix_bytes: placed.cache_bytes / PARTS * PREFIX_PARTS,
            vision_bytes: placed.cache_bytes / PARTS * VISION_PARTS,
        })
    }
}
