use candle_core::{Device, Error};

use crate::LoadError;
use crate::backbone::PassError;

/// What a failed operation says of the device on which it ran.
pub(super) fn fault(error: Error, device: &Device) -> PassError {
    #[cfg(feature = "cuda")]
    if let Some(fault) = super::cuda::fault(&error, device) {
        return fault;
    }
    #[cfg(not(feature = "cuda"))]
    let _ = device;
    PassError::Failed(LoadError::Tensor(error))
}
