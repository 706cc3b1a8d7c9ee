use std::fmt;

use FaultClass::{Bug, Lost, OutOfMemory, PeerAccess};

/// A call of the driver that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{call}: {}", Named(*code))]
pub struct Fault {
    /// The driver's function.
    pub call: &'static str,
    /// Its `CUresult`.
    pub code: u32,
}

/// What a fault means for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultClass {
    /// The memory did not suffice. Nothing is broken; what frees memory may try again.
    OutOfMemory,
    /// The context or the device is gone: every later call fails, and what its memory holds is
    /// lost.
    Lost,
    /// Devices do not reach each other directly. Both are well.
    PeerAccess,
    /// The call was wrong, or the driver refused it. The device is as it was before; where the code
    /// says nothing certain, the owner asks the device once more and takes it out of service if
    /// that fails too.
    Bug,
}

/// `CUDA_ERROR_INVALID_VALUE`.
pub(crate) const INVALID_VALUE: u32 = 1;
/// `CUDA_ERROR_NO_DEVICE`.
#[cfg(feature = "cuda")]
pub(crate) const NO_DEVICE: u32 = 100;
/// `CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED`.
#[cfg(feature = "cuda")]
pub(crate) const PEER_ACCESS_ALREADY_ENABLED: u32 = 704;

/// What the driver's documentation says of each code that its calls here may give. Those after
/// which it calls the context unusable, the process inconsistent or the device unavailable are
/// [`FaultClass::Lost`].
const CODES: &[(u32, &str, FaultClass)] = &[
    (1, "CUDA_ERROR_INVALID_VALUE", Bug),
    (2, "CUDA_ERROR_OUT_OF_MEMORY", OutOfMemory),
    (3, "CUDA_ERROR_NOT_INITIALIZED", Bug),
    (4, "CUDA_ERROR_DEINITIALIZED", Lost),
    (34, "CUDA_ERROR_STUB_LIBRARY", Bug),
    (36, "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER", Bug),
    (46, "CUDA_ERROR_DEVICE_UNAVAILABLE", Lost),
    (100, "CUDA_ERROR_NO_DEVICE", Bug),
    (101, "CUDA_ERROR_INVALID_DEVICE", Bug),
    (102, "CUDA_ERROR_DEVICE_NOT_LICENSED", Lost),
    (200, "CUDA_ERROR_INVALID_IMAGE", Bug),
    (201, "CUDA_ERROR_INVALID_CONTEXT", Bug),
    (209, "CUDA_ERROR_NO_BINARY_FOR_GPU", Bug),
    (214, "CUDA_ERROR_ECC_UNCORRECTABLE", Lost),
    (217, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED", PeerAccess),
    (218, "CUDA_ERROR_INVALID_PTX", Bug),
    (220, "CUDA_ERROR_NVLINK_UNCORRECTABLE", Lost),
    (226, "CUDA_ERROR_CONTAINED", Lost),
    (304, "CUDA_ERROR_OPERATING_SYSTEM", Bug),
    (400, "CUDA_ERROR_INVALID_HANDLE", Bug),
    (600, "CUDA_ERROR_NOT_READY", Bug),
    (700, "CUDA_ERROR_ILLEGAL_ADDRESS", Lost),
    (701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", Bug),
    (702, "CUDA_ERROR_LAUNCH_TIMEOUT", Lost),
    (704, "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED", PeerAccess),
    (705, "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED", PeerAccess),
    (709, "CUDA_ERROR_CONTEXT_IS_DESTROYED", Lost),
    (710, "CUDA_ERROR_ASSERT", Lost),
    (711, "CUDA_ERROR_TOO_MANY_PEERS", PeerAccess),
    (714, "CUDA_ERROR_HARDWARE_STACK_ERROR", Lost),
    (715, "CUDA_ERROR_ILLEGAL_INSTRUCTION", Lost),
    (716, "CUDA_ERROR_MISALIGNED_ADDRESS", Lost),
    (717, "CUDA_ERROR_INVALID_ADDRESS_SPACE", Lost),
    (718, "CUDA_ERROR_INVALID_PC", Lost),
    (719, "CUDA_ERROR_LAUNCH_FAILED", Lost),
    (721, "CUDA_ERROR_TENSOR_MEMORY_LEAK", Lost),
    (800, "CUDA_ERROR_NOT_PERMITTED", Bug),
    (801, "CUDA_ERROR_NOT_SUPPORTED", Bug),
    (802, "CUDA_ERROR_SYSTEM_NOT_READY", Lost),
    (803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", Bug),
    (805, "CUDA_ERROR_MPS_CONNECTION_FAILED", Lost),
    (806, "CUDA_ERROR_MPS_RPC_FAILURE", Lost),
    (807, "CUDA_ERROR_MPS_SERVER_NOT_READY", Lost),
    (810, "CUDA_ERROR_MPS_CLIENT_TERMINATED", Lost),
    (911, "CUDA_ERROR_EXTERNAL_DEVICE", Lost),
    (999, "CUDA_ERROR_UNKNOWN", Lost),
];

// === impl Fault ===

impl Fault {
    /// What it means for the device. A code that is not known counts as [`FaultClass::Bug`]:
    /// whether the device still answers decides.
    pub fn class(&self) -> FaultClass {
        CODES.iter().find(|(code, ..)| *code == self.code).map_or(Bug, |(.., class)| *class)
    }
}

// === impl Named ===

struct Named(u32);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match CODES.iter().find(|(code, ..)| *code == self.0) {
            Some((code, name, _)) => write!(f, "{name} ({code})"),
            None => write!(f, "code {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_classified_as_the_drivers_documentation_has_them() {
        let rows = [
            (2, OutOfMemory),
            (46, Lost),
            (214, Lost),
            (220, Lost),
            (700, Lost),
            (709, Lost),
            (715, Lost),
            (719, Lost),
            (999, Lost),
            (217, PeerAccess),
            (705, PeerAccess),
            (711, PeerAccess),
            (1, Bug),
            (201, Bug),
            (400, Bug),
            (801, Bug),
            (123_456, Bug),
        ];
        for (code, class) in rows {
            assert_eq!(Fault { call: "cuCall", code }.class(), class, "{code}");
        }
    }

    #[test]
    fn codes_stand_once_and_in_order() {
        assert!(CODES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn a_fault_names_the_call_and_the_code() {
        let known = Fault { call: "cuMemAlloc_v2", code: 2 };
        assert_eq!(known.to_string(), "cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY (2)");
        let unknown = Fault { call: "cuInit", code: 123_456 };
        assert_eq!(unknown.to_string(), "cuInit: code 123456");
    }

    /// Names are written here by hand; cudarc's bindings are generated from NVIDIA's headers.
    #[cfg(feature = "cuda")]
    #[test]
    fn names_are_those_of_the_bindings() {
        use cudarc::driver::sys::CUresult as R;
        let bindings = [
            R::CUDA_ERROR_INVALID_VALUE,
            R::CUDA_ERROR_OUT_OF_MEMORY,
            R::CUDA_ERROR_DEINITIALIZED,
            R::CUDA_ERROR_STUB_LIBRARY,
            R::CUDA_ERROR_DEVICE_UNAVAILABLE,
            R::CUDA_ERROR_NO_DEVICE,
            R::CUDA_ERROR_INVALID_CONTEXT,
            R::CUDA_ERROR_ECC_UNCORRECTABLE,
            R::CUDA_ERROR_PEER_ACCESS_UNSUPPORTED,
            R::CUDA_ERROR_NVLINK_UNCORRECTABLE,
            R::CUDA_ERROR_ILLEGAL_ADDRESS,
            R::CUDA_ERROR_LAUNCH_TIMEOUT,
            R::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED,
            R::CUDA_ERROR_PEER_ACCESS_NOT_ENABLED,
            R::CUDA_ERROR_CONTEXT_IS_DESTROYED,
            R::CUDA_ERROR_TOO_MANY_PEERS,
            R::CUDA_ERROR_HARDWARE_STACK_ERROR,
            R::CUDA_ERROR_MISALIGNED_ADDRESS,
            R::CUDA_ERROR_LAUNCH_FAILED,
            R::CUDA_ERROR_SYSTEM_NOT_READY,
            R::CUDA_ERROR_MPS_RPC_FAILURE,
            R::CUDA_ERROR_EXTERNAL_DEVICE,
            R::CUDA_ERROR_UNKNOWN,
        ];
        for result in bindings {
            let row = CODES.iter().find(|(code, ..)| *code == result as u32);
            assert_eq!(row.map(|row| row.1), Some(format!("{result:?}").as_str()));
        }
    }
}
