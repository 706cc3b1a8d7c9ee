use std::fmt;

use crate::discovery::UnfitReason;

/// A device's compute capability, as `8.6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComputeCapability {
    /// Its generation.
    pub major: u32,
    /// Its step within the generation.
    pub minor: u32,
}

/// What the kernels of a build were compiled for.
///
/// Machine code (SASS) runs on its own major version from its own minor version upward. PTX is
/// compiled by the driver when it is loaded, and runs on every capability from its own upward, the
/// next generations included. Names with a letter, such as `sm_90a`, promise neither: do not list
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels<'a> {
    /// Capabilities that there is machine code for.
    pub sass: &'a [ComputeCapability],
    /// Capabilities that there is PTX for.
    pub ptx: &'a [ComputeCapability],
}

// === impl ComputeCapability ===

impl ComputeCapability {
    /// `ComputeCapability::new(8, 6)` is 8.6.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

// === impl Kernels ===

impl Kernels<'_> {
    /// Whether these kernels run on a device.
    ///
    /// # Errors
    /// [`UnfitReason::Kernels`] where none does.
    pub fn fits(&self, device: ComputeCapability) -> Result<(), UnfitReason> {
        let machine_code = self
            .sass
            .iter()
            .any(|built| built.major == device.major && built.minor <= device.minor);
        if machine_code || self.ptx.iter().any(|built| *built <= device) {
            return Ok(());
        }
        let mut built_for: Vec<_> = self.sass.iter().chain(self.ptx).copied().collect();
        built_for.sort_unstable();
        built_for.dedup();
        Err(UnfitReason::Kernels { device, built_for })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn cc(major: u32, minor: u32) -> ComputeCapability {
        ComputeCapability::new(major, minor)
    }

    #[test]
    fn machine_code_needs_its_major_version_and_at_most_the_devices_minor() {
        let rows = [
            (cc(8, 0), cc(8, 0), true),
            (cc(8, 0), cc(8, 6), true),
            (cc(8, 6), cc(8, 6), true),
            (cc(8, 6), cc(8, 0), false),
            (cc(8, 9), cc(8, 6), false),
            (cc(8, 0), cc(9, 0), false),
            (cc(9, 0), cc(8, 9), false),
            (cc(7, 5), cc(7, 5), true),
            (cc(7, 5), cc(8, 0), false),
            (cc(10, 0), cc(12, 0), false),
        ];
        for (built, device, fits) in rows {
            let kernels = Kernels { sass: &[built], ptx: &[] };
            assert_eq!(kernels.fits(device).is_ok(), fits, "{built} on {device}");
        }
    }

    #[test]
    fn ptx_runs_on_its_own_and_every_later_capability() {
        let rows = [
            (cc(8, 0), cc(8, 0), true),
            (cc(8, 0), cc(9, 0), true),
            (cc(8, 0), cc(12, 1), true),
            (cc(8, 6), cc(8, 0), false),
            (cc(9, 0), cc(8, 9), false),
        ];
        for (built, device, fits) in rows {
            let kernels = Kernels { sass: &[], ptx: &[built] };
            assert_eq!(kernels.fits(device).is_ok(), fits, "{built} on {device}");
        }
    }

    #[test]
    fn one_of_many_is_enough_and_none_says_what_there_is() {
        let kernels = Kernels { sass: &[cc(8, 6), cc(8, 0)], ptx: &[cc(9, 0), cc(8, 6)] };
        assert_eq!(kernels.fits(cc(8, 0)), Ok(()));
        assert_eq!(kernels.fits(cc(10, 0)), Ok(()));
        let refused = kernels.fits(cc(7, 5)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "its compute capability is 7.5 and this build has kernels for 8.0, 8.6, 9.0: build with CUDA_COMPUTE_CAP=75"
        );
    }
}
