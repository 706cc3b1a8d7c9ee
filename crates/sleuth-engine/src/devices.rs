//! Which devices of this machine hold a replica of a model, and the workers on them.

use sleuth_cuda::{
    BadList, BadShare, Discovery, Driver, Listing, MemoryShare, Plan, ReplicaNeed, Wanted,
    discover, place, report,
};
use sleuth_models::ModelFolder;
use sleuth_models::device::{DeviceModel, DeviceSettings};

use crate::EngineSettings;

#[cfg(feature = "cuda")]
mod load;

/// Which devices to use, and how much of them.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceChoice {
    /// Their numbers; all without.
    pub ordinals: Option<Vec<u32>>,
    /// Share of each device's free memory, above 0 and at most 1.
    pub memory_share: f64,
    /// How weights, keys and values are stored.
    pub model: DeviceSettings,
}

/// The devices that were found, and what goes where.
#[derive(Clone, Debug)]
pub struct Devices {
    discovery: Discovery,
    plan: Plan,
    choice: DeviceChoice,
}

/// What was asked for cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DeviceError {
    /// A number that no device has, or one twice.
    #[error(transparent)]
    List(#[from] BadList),
    /// A share that is none.
    #[error(transparent)]
    Share(#[from] BadShare),
}

/// Rows of the smallest prefix cache beside the images': one prefix with a long prompt.
const SMALLEST_PROMPT: usize = 512;
/// What a device does until a batch has been measured, in 1e9 products and sums a second.
#[cfg(feature = "cuda")]
const GFLOP_PER_SECOND: f64 = 50_000.0;

// === impl Devices ===

impl Devices {
    /// Finds the machine's devices and plans a replica of the folder's model on each that has room.
    pub fn find(folder: &ModelFolder, choice: DeviceChoice) -> Result<Self, DeviceError> {
        let share = MemoryShare::new(choice.memory_share)?;
        #[cfg_attr(not(feature = "cuda"), expect(unused_mut, reason = "nothing is required then"))]
        let mut discovery = discover();
        #[cfg(feature = "cuda")]
        load::require_kernels(&mut discovery);
        let rows = EngineSettings::default().max_batch_tokens;
        let image = folder.config.vision_config.image_tokens();
        let need = ReplicaNeed {
            weights: DeviceModel::weight_bytes_of(folder, choice.model.weights),
            workspace: DeviceModel::workspace_bytes_of(folder, rows, choice.model),
            smallest_cache: DeviceModel::kv_bytes_of(
                folder,
                image + SMALLEST_PROMPT,
                choice.model.kv,
            ),
        };
        let only = choice.ordinals.as_deref();
        let candidates = discovery.candidates();
        // Where there is no driver a list of devices is no mistake: there are none to name.
        let only = only.filter(|_| matches!(discovery.driver, Driver::Present(_)));
        let plan = place(&candidates, share, &need, Wanted::AsManyAsFit, only)?;
        Ok(Self { discovery, plan, choice })
    }

    /// Devices that would hold a replica.
    pub fn count(&self) -> usize {
        self.plan.replicas.len()
    }

    /// Why there is no driver, if there is none.
    pub fn no_driver(&self) -> Option<String> {
        match &self.discovery.driver {
            Driver::Absent(reason) => Some(reason.to_string()),
            Driver::Present(_) => None,
        }
    }

    /// Why no device holds a replica.
    pub fn why_none(&self) -> String {
        if let Some(reason) = self.no_driver() {
            return reason;
        }
        let mut whys =
            self.plan.left_out.iter().map(|(ordinal, why)| format!("device {ordinal}: {why}"));
        whys.next().map_or_else(
            || "the driver has no device".to_owned(),
            |first| whys.fold(first, |all, why| format!("{all}; {why}")),
        )
    }

    /// What was found and what goes where, as text for a terminal.
    pub fn report(&self) -> String {
        report(&self.discovery, &self.plan)
    }

    /// The same for scripts.
    pub fn listing(&self) -> Listing {
        Listing::new(&self.discovery, &self.plan)
    }

    /// How it was chosen.
    pub fn choice(&self) -> &DeviceChoice {
        &self.choice
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sleuth_models::LoadOptions;

    use super::*;

    fn folder() -> ModelFolder {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/golden/paligemma/many_kv_heads");
        ModelFolder::open(&folder, &LoadOptions::default()).unwrap()
    }

    fn choice(ordinals: Option<Vec<u32>>, memory_share: f64) -> DeviceChoice {
        DeviceChoice { ordinals, memory_share, model: DeviceSettings::default() }
    }

    #[test]
    fn a_share_of_memory_is_a_share() {
        for share in [0.0, 1.5, f64::NAN] {
            assert!(matches!(
                Devices::find(&folder(), choice(None, share)),
                Err(DeviceError::Share(_))
            ));
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn without_the_feature_there_is_no_device_and_one_reason() {
        let devices = Devices::find(&folder(), choice(Some(vec![3]), 0.9)).unwrap();
        assert_eq!(devices.count(), 0);
        assert!(devices.why_none().contains("build with the feature `cuda`"));
        assert!(devices.report().contains("driver   none"));
        let listing = devices.listing();
        assert_eq!(listing.no_driver, devices.no_driver());
        assert!(listing.driver.is_none() && listing.devices.is_empty());
    }
}
