//! What devices there are, and which of them can serve.
//!
//! libcuda alone is asked: whether a context can be made, and whether memory can be written and
//! read back. Counters of corrected errors, temperatures, throttling and pending page retirement
//! are NVML's, which is not asked; a device that is wearing out looks healthy here until it fails.

use std::fmt;

use crate::capability::{ComputeCapability, Kernels};
use crate::driver;
use crate::fault::Fault;
use crate::peers::PeerMatrix;
use crate::placement::Candidate;

/// The oldest driver that has all that is called here.
pub const OLDEST_DRIVER: DriverVersion = DriverVersion { major: 11, minor: 4 };

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The driver.
    pub driver: Driver,
    /// Its devices by ordinal; none where there is no driver.
    pub devices: Vec<DeviceFacts>,
    /// Which of the healthy devices reach each other.
    pub peers: PeerMatrix,
}

/// Whether there is a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// None that can be used, and why.
    Absent(NoDriver),
    /// There is one; devices may still be none.
    Present(DriverVersion),
}

/// The newest CUDA that a driver supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DriverVersion {
    /// As 13 in 13.0.
    pub major: u32,
    /// As 0 in 13.0.
    pub minor: u32,
}

/// Why there is no driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDriver {
    /// The feature `cuda` is off.
    #[error("this build has no CUDA: build with the feature `cuda`")]
    NotBuilt,
    /// libcuda cannot be opened.
    #[error(
        "libcuda.so.1 was not found: install the NVIDIA driver, or run the container with its GPU runtime"
    )]
    NoLibrary,
    /// It lacks functions that are needed.
    #[error(
        "the driver supports CUDA {found} and {OLDEST_DRIVER} is needed: install a newer driver"
    )]
    TooOld {
        /// What it supports.
        found: DriverVersion,
    },
    /// It does not start.
    #[error("the driver does not start: {0}")]
    NotStarted(Fault),
}

/// A device, as far as it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Its number, as `CUDA_VISIBLE_DEVICES` leaves it.
    pub ordinal: u32,
    /// As `NVIDIA H100 80GB HBM3`.
    pub name: Option<String>,
    /// What names it on every machine and under every `CUDA_VISIBLE_DEVICES`.
    pub uuid: Option<DeviceUuid>,
    /// As `0000:3B:00.0`.
    pub pci_bus_id: Option<String>,
    /// What kernels it runs.
    pub compute_capability: Option<ComputeCapability>,
    /// Whether its memory corrects errors.
    pub ecc: Option<bool>,
    /// Bytes of memory; 0 where it did not answer.
    pub total_bytes: u64,
    /// Bytes that were free, once a context was made; 0 where none was.
    pub free_bytes: u64,
    /// Whether it can serve.
    pub fitness: Fitness,
}

/// Whether a device can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// A context was made, and memory was written and read back.
    Healthy,
    /// It cannot.
    Unfit(UnfitReason),
}

/// Why a device cannot serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitReason {
    /// It does not answer, or no context can be made on it.
    #[error("it does not answer: {0}")]
    NoAnswer(Fault),
    /// Its memory gave back other bytes than were written.
    #[error("its memory gave back other bytes than were written: take it out and test it")]
    MemoryTest,
    /// No kernel of this build runs on it.
    #[error(
        "its compute capability is {device} and this build has kernels for {}: build with CUDA_COMPUTE_CAP={}{}",
        Listed(built_for), device.major, device.minor
    )]
    Kernels {
        /// What it is.
        device: ComputeCapability,
        /// What there are kernels for.
        built_for: Vec<ComputeCapability>,
    },
}

/// What names a device on every machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceUuid(pub [u8; 16]);

/// Asks the driver for its devices, and every device for its facts and its health.
///
/// A device that does not answer is [`Fitness::Unfit`] and stands in nobody's way. On each device
/// the primary context is made and let go again, which takes a while and, meanwhile, some hundred
/// MiB of its memory. The calling thread's own context is left alone: the work is done on another
/// thread.
pub fn discover() -> Discovery {
    let asking =
        std::thread::Builder::new().name("cuda-discover".to_owned()).spawn(driver::discover);
    match asking.map(std::thread::JoinHandle::join) {
        Ok(Ok(discovery)) => discovery,
        // The machine gives no thread, or cudarc panicked: no device is told rather than a wrong
        // one.
        Ok(Err(_)) | Err(_) => {
            Discovery::absent(NoDriver::NotStarted(Fault { call: "discovery", code: 999 }))
        }
    }
}

// === impl Discovery ===

impl Discovery {
    pub(crate) fn absent(reason: NoDriver) -> Self {
        Self { driver: Driver::Absent(reason), devices: Vec::new(), peers: PeerMatrix::none() }
    }

    /// Marks the devices on which no kernel of this build runs as unfit.
    pub fn require(&mut self, kernels: &Kernels<'_>) {
        for device in &mut self.devices {
            let Some(capability) = device.compute_capability else { continue };
            if device.fitness == Fitness::Healthy
                && let Err(reason) = kernels.fits(capability)
            {
                device.fitness = Fitness::Unfit(reason);
            }
        }
    }

    /// The devices as placement wants them.
    pub fn candidates(&self) -> Vec<Candidate> {
        self.devices
            .iter()
            .map(|device| Candidate {
                ordinal: device.ordinal,
                free_bytes: device.free_bytes,
                unfit: match &device.fitness {
                    Fitness::Healthy => None,
                    Fitness::Unfit(reason) => Some(reason.clone()),
                },
            })
            .collect()
    }
}

// === impl DeviceFacts ===

impl DeviceFacts {
    /// A device of which nothing is known yet.
    #[cfg(feature = "cuda")]
    pub(crate) fn unknown(ordinal: u32) -> Self {
        Self {
            ordinal,
            name: None,
            uuid: None,
            pci_bus_id: None,
            compute_capability: None,
            ecc: None,
            total_bytes: 0,
            free_bytes: 0,
            fitness: Fitness::Healthy,
        }
    }
}

// === impl DriverVersion ===

impl DriverVersion {
    /// From `cuDriverGetVersion`'s 1000 × major + 10 × minor.
    #[cfg(feature = "cuda")]
    pub(crate) fn from_number(number: i32) -> Self {
        let number = number.max(0) as u32;
        Self { major: number / 1000, minor: number % 1000 / 10 }
    }
}

impl fmt::Display for DriverVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

// === impl DeviceUuid ===

impl fmt::Display for DeviceUuid {
    /// As nvidia-smi writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GPU")?;
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 0 | 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DeviceUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

struct Listed<'a>(&'a [ComputeCapability]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, capability) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{capability}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_reads_as_nvidia_smi_writes_it() {
        let uuid = DeviceUuid(std::array::from_fn(|byte| byte as u8 * 17));
        assert_eq!(uuid.to_string(), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_version_is_read_from_the_drivers_number() {
        assert_eq!(DriverVersion::from_number(13_000), DriverVersion { major: 13, minor: 0 });
        assert_eq!(DriverVersion::from_number(12_080), DriverVersion { major: 12, minor: 8 });
        assert!(DriverVersion::from_number(11_030) < OLDEST_DRIVER);
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_so_and_finds_no_device() {
        let discovery = discover();
        assert_eq!(discovery, Discovery::absent(NoDriver::NotBuilt));
        let Driver::Absent(reason) = discovery.driver else { panic!("there is a driver") };
        assert_eq!(reason.to_string(), "this build has no CUDA: build with the feature `cuda`");
    }
}
